"""Every field of a shot, through Python, YAML and the command line: right, or refused by name.

`KINEMA_FUZZ=20 pytest tests/hostile/test_values.py` tries twenty times as many, others each time.

No traceback, no hang (bounded in processor time), no file left behind, and one printable line for the user.
"""

import contextlib
import io
import json
import os
import signal
from dataclasses import fields as fields_of
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from shot_values import WORDS, fields, one_field, shots

import kinema.cli
from kinema.cli.options import ShotOptions
from kinema.core.errors import KinemaError
from kinema.diffusion.flow import sigmas
from kinema.io.clip import Clip
from kinema.pipelines.job import make_job
from kinema.story.files import read_values
from kinema.story.shot import Shot
from kinema.story.storyboard import dump, from_mapping, load

PROCESSOR_SECONDS = 20
MANY = int(os.environ.get("KINEMA_FUZZ", "1"))  # times the usual number of examples


def examples(count):
    return settings(
        max_examples=count * MANY,
        suppress_health_check=list(HealthCheck),
        derandomize=MANY == 1,
        deadline=None,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with good and bad media; nothing may be added to it."""
    folder = tmp_path_factory.mktemp("fuzz")
    pixels = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(folder / "a.png")
    Clip(pixels, 8).save(folder / "c.mp4")
    (folder / "text.png").write_text("no picture")
    (folder / "folder").mkdir()
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch):
    def load_weights(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("kinema.pipelines.run.load", load_weights)
    monkeypatch.setattr("kinema.pipelines.estimate.measure_rate", lambda *_: 1e9)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.model_info", lambda *_, **__: (_ for _ in ()).throw(OSError("offline"))
    )


@contextlib.contextmanager
def harmless(place):
    """Ends in time, and leaves the folder as it was."""

    def late(*_):
        raise TimeoutError(f"more than {PROCESSOR_SECONDS} s of processor time")

    before = sorted(path.name for path in place.iterdir())
    signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, PROCESSOR_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    assert sorted(path.name for path in place.iterdir()) == before


def told(error):
    """What the user reads: one printable line that is not endless."""
    line = kinema.cli.one_line(str(error))
    assert line.strip()
    assert line.isprintable()
    assert len(line) < 4000, line


def check_shot(values):
    """A shot is refused, or it can be planned or refused, and written down and read again."""
    try:
        shot = Shot.from_mapping(values)
    except KinemaError as error:
        told(error)
        return
    again = Shot.from_mapping(json.loads(json.dumps(shot.to_mapping(), allow_nan=False)))
    assert again == shot
    try:
        job = make_job(shot)
    except KinemaError as error:
        told(error)
        return
    for plan in job.plans:
        assert plan.geometry.width > 0
        assert np.isfinite(plan.sampling.guidance).all()
        levels = sigmas(plan.sampling.steps, plan.sampling.shift, plan.sampling.grid)
        assert ((levels >= 0) & (levels <= 1)).all()
        json.dumps(plan.shot, allow_nan=False)
    Shot.from_mapping(job.shot)  # what the record will hold is a shot


@pytest.mark.parametrize("name", fields())
@examples(8)
@given(data=st.data())
def test_each_field_by_itself(place, name, data):
    value = data.draw(one_field(name, python=True), label=name)
    with harmless(place):
        check_shot({name: value})


@examples(60)
@given(values=shots(python=True))
def test_fields_together(place, values):
    with harmless(place):
        check_shot(values)


@pytest.mark.slow
@examples(3000)
@given(values=shots(python=True, most=8))
def test_many_fields_together(place, values):
    with harmless(place):
        check_shot(values)


@examples(40)
@given(
    values=st.one_of(
        shots(), st.builds(lambda a, b, c: {**a, "shots": [b, c]}, shots(most=2), shots(), shots())
    )
)
def test_yaml_and_json_files(place, tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("files")
    text = json.dumps(values)  # NaN and Infinity as Python writes them
    for name in ("a.json", "a.yaml"):
        (folder / name).write_text(text, "utf-8", "surrogatepass")
        with harmless(place):
            try:
                story = load(folder / name)
                dump(story, folder / "again.yaml")
                assert load(folder / "again.yaml") == story
            except KinemaError as error:
                told(error)


BROKEN = (
    "&a [*a]", "!!python/object/apply:os.system [touch x]", "? [a]\n: b", "a: b: c", "\t- a", "%YAML 9", "{",
    "- " * 99, "a: " + "[" * 2000, "prompt: |\n a\n", "a: !!binary eA==", "<<: {a: 1}", "\ufeffprompt: a",
    "\x00", "prompt: a\n---\nprompt: b",
)  # fmt: skip


@examples(60)
@given(
    parts=st.lists(
        st.one_of(
            st.sampled_from(BROKEN),
            st.sampled_from(WORDS),
            st.sampled_from(fields()).map(lambda n: f"\n{n}: "),
        ),
        max_size=6,
    )
)
def test_text_that_is_hardly_yaml(place, tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("text") / "a.yaml"
    path.write_bytes("".join(parts).encode("utf-8", "surrogatepass"))
    with harmless(place):
        try:
            from_mapping(read_values(path))
        except KinemaError as error:
            told(error)


FLAGS = [field.name.replace("_", "-") for field in fields_of(ShotOptions) if field.name != "length_fit"]
TEXTS = st.one_of(
    st.sampled_from(WORDS),
    st.integers(-3, 40).map(str),
    st.sampled_from(fields()).flatmap(one_field).map(str),
)


VERBS = [
    ["generate", "a"],
    ["plan", "a"],
    ["animate", "a.png"],
    ["restyle", "c.mp4", "b"],
    ["extend", "c.mp4"],
    ["keyframes", "a.png@0"],
    ["travel", "0: a", "8: b"],
]


@examples(50)
@given(
    verb=st.sampled_from(VERBS),
    flags=st.dictionaries(st.sampled_from(FLAGS), TEXTS, max_size=3),
    word=st.one_of(st.none(), TEXTS),
)
def test_the_command_line(place, verb, flags, word):
    line = [*verb, *([] if word is None else [word])]
    for name, value in flags.items():
        line += [f"--{name}={value}"]
    line += [] if verb[0] == "plan" else ["--dry-run"]
    run_line(place, line)


def run_line(place, line):
    out, err = io.StringIO(), io.StringIO()
    with harmless(place), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = kinema.cli.run(line)
    assert code in (0, 2), (code, err.getvalue())
    if code == 2:
        assert err.getvalue().startswith("error: ")
        assert err.getvalue()[:-1].isprintable(), err.getvalue()
