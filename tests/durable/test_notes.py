"""What happened on the way is in every file's record, whole, however often the render was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

import kinema
from kinema.io.hidden import state_folder
from kinema.io.record import read_record
from kinema.pipelines.durable.state import Keep

OUT = "b.mp4"


class Enough(Exception):
    """Raised to stop a render."""


@pytest.fixture(scope="module")
def model(small) -> kinema.pipelines.model.Model:
    return kinema.load(str(small), device="cpu")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def eventful(monkeypatch) -> None:
    """Every shot has something to tell after its sampling, and again of its second latent frame."""
    from kinema.pipelines import render

    real, before = render.finite, [1]

    def finite(frames):  # the first latent frame is one frame, the others are several
        second, before[0] = before[0] == 1 < frames.shape[2], frames.shape[2]
        return real(frames) and (careful or not second)

    careful: list[bool] = []
    again = render._decoded_again

    def decoded_again(*given):
        careful.append(True)
        try:
            yield from again(*given)
        finally:
            careful.pop()

    monkeypatch.setattr(render, "finite", finite)
    monkeypatch.setattr(render, "_decoded_again", decoded_again)
    monkeypatch.setattr(render, "_left_out", lambda plan, carry: f"seed {plan.sampling.seed} was sampled.")


def shot(model, **fields) -> kinema.Shot:
    given = {"prompt": "a fox", "model": model.card.id, "seed": 3, "steps": 2, "frames": 9, "size": "64x64"}
    return kinema.Shot.from_mapping({**given, **fields})


def board(model) -> kinema.Storyboard:
    return kinema.Storyboard.from_mapping(
        {"shots": [shot(model).to_mapping(), shot(model, seed=5).to_mapping()]}
    )


SAMPLED, DECODED = (
    "seed 3 was sampled.",
    "latent frame 2 of 3 was not finite and was decoded again in float32.",
)
BOTH = [
    f"shot {i}: {text}" for i, seed in ((1, 3), (2, 5)) for text in (f"seed {seed} was sampled.", DECODED)
]


@pytest.mark.parametrize("out", [OUT, "b.mkv", "b.webm", "b.gif", "b.webp", "s/%02d.png"])
def test_every_format_tells_what_happened_until_the_last_frame(model, out):
    kinema.render(board(model), model=model, out=out, sidecar=True)
    record = read_record(Path(out))
    assert record.run == {"notes": BOTH}
    beside = Path("s/01.png.json" if "%" in out else f"{out}.json")
    assert read_record(beside) == record


def cut(model, request, **stop) -> None:
    with pytest.raises(Enough):
        kinema.render(request, model=model, out=OUT, **stop)


def stop_at(phase: str, step: int, shot: int = 1):
    def on_progress(event: kinema.Progress) -> None:
        if (event.phase, event.step, event.shot) == (phase, step, shot) and event.note is None:
            raise Enough

    return on_progress


@pytest.mark.parametrize("at", ["decode", "all frames", "second shot"])
def test_a_render_that_was_cut_tells_the_same_and_gives_the_same_bytes(model, here, monkeypatch, at):
    request = shot(model) if at != "second shot" else board(model)
    kinema.render(request, model=model, out="whole.mp4")
    if at == "all frames":
        with monkeypatch.context() as patch:

            def enough(*_):
                raise Enough

            patch.setattr(Keep, "publishing", enough)
            cut(model, request)
    else:
        step, number = (3, 1) if at == "decode" else (1, 2)
        cut(model, request, on_progress=stop_at("decode", step, number))
    told: list[str] = []
    kinema.render(
        request, model=model, out=OUT, on_progress=lambda e: told.append(e.note) if e.note else None
    )
    assert (here / OUT).read_bytes() == (here / "whole.mp4").read_bytes()
    expected = (
        [SAMPLED, DECODED] if at != "second shot" else [SAMPLED, DECODED, "seed 5 was sampled.", DECODED]
    )
    assert told == expected  # each once, those of the first process first


def test_a_clip_in_memory_tells_what_happened_before_it_was_cut(model):
    with pytest.raises(Enough):
        kinema.render(shot(model), model=model, state_dir="kept", on_progress=stop_at("decode", 3))
    clip = kinema.render(shot(model), model=model, state_dir="kept")
    assert clip.record.run == {"notes": [SAMPLED, DECODED]}


def test_damaged_notes_are_told_and_cost_nothing_else(model, here):
    cut(model, shot(model), on_progress=stop_at("decode", 3))
    path = next(state_folder(Path(OUT)).glob("*/notes.json"))
    path.write_bytes(path.read_bytes()[:-9])
    notes: list[str] = []
    kinema.render(shot(model), model=model, out=OUT, on_note=notes.append)
    assert len(notes) == 1
    assert "damaged" in notes[0]
    assert read_record(here / OUT).run == {"notes": [DECODED]}  # only this happened again


def test_frames_that_are_encoded_again_are_told_of_once(model, here, monkeypatch):
    from kinema.io.frame_sink import EncoderError, FrameSink

    real, failed = FrameSink.write, []

    def fails(self, frame):
        if not failed:
            failed.append(1)
            raise EncoderError("cannot write: it died.")
        real(self, frame)

    monkeypatch.setattr(FrameSink, "write", fails)
    told: list[str] = []
    kinema.render(shot(model), model=model, out=OUT, on_note=lambda _: None,
                  on_progress=lambda e: told.append(e.note) if e.note else None)  # fmt: skip
    assert failed
    assert told == [SAMPLED, DECODED]
    assert read_record(here / OUT).run == {"notes": told}
