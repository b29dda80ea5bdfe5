"""The page about schedules: its examples are read, its Python runs, its table of differences is true."""

import re
import wave
from pathlib import Path

import numpy as np
import pytest

from kinema import Schedule
from kinema.core.errors import ConfigError
from kinema.story.easing import EASINGS
from kinema.story.expressions import CONSTANTS, VARIABLES
from kinema.story.files import parse_yaml
from kinema.story.music import FEATURES
from kinema.story.storyboard import from_mapping
from kinema.story.waves import FUNCTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text(encoding="utf-8")
LISTED, SOUND = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("line", LISTED.splitlines())
def test_every_way_to_write_one(line):
    shot = from_mapping(parse_yaml(line))
    assert shot.guidance.sample(121, 24).shape == (121,)


def test_the_shot_with_sound():
    shot = from_mapping(parse_yaml(SOUND))
    assert shot.bpm == 128
    assert shot.prompt.frames_of_keys(300, 24) == (0, 96, 192)  # at 120 a minute until it is planned


def test_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    click = (np.exp(-np.arange(1500) / 200) * np.sin(np.arange(1500) / 3) * 20000).astype("<i2")
    second = np.concatenate([click, np.zeros(11025 - 1500, "<i2")])
    with wave.open("song.wav", "wb") as file:
        file.setparams((1, 2, 22_050, 0, "NONE", ""))
        file.writeframes(np.tile(second, 12).tobytes())
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/schedules.md", "exec"), scope)
    assert scope["recording"].tempo == pytest.approx(120, abs=0.2)


def test_everything_there_is_is_on_the_page():
    words = set(re.findall(r"[A-Za-z_][A-Za-z_0-9.]*", PAGE))
    aliases = {"arcsin", "arccos", "arctan", "clip", "expm1", "log1p"}
    for name in (*VARIABLES, *CONSTANTS, *FUNCTIONS, *FEATURES):
        assert name in words | aliases, name
    shapes = {name.removeprefix("in_out").removeprefix("in").removeprefix("out") for name in EASINGS}
    for shape in shapes - {""}:
        assert f"`{shape}`" in PAGE, shape


def native(text, frames=61):
    try:
        return Schedule.parse(text).values(frames).round(6).tolist()
    except ConfigError:
        return "error"


def deforum(text, frames=61):
    return Schedule.parse(text, "deforum").values(frames).round(6).tolist()


def test_the_table_of_differences():
    assert deforum("0:(0), 100:(50)") == [0] * 61
    assert native("0:(0), 100:(50)")[60] == 30
    for text in ("0:(1/2), 30:(3/2)", "0:( 0.5 ), 30:( 1.5 )", "0:(5e-1), 30:(1.5)"):
        assert deforum(text)[29] == 0.5
        assert native(text)[15] == 1
    assert deforum("0:(sin(t)), 30:(1)")[29] == pytest.approx(np.sin(29), abs=1e-6)
    assert native("0:(sin(t)), 30:(1)")[29] == pytest.approx(np.sin(29) / 30 + 29 / 30, abs=1e-6)
    assert native("5:(1), 10:(2)")[:6] == [1] * 6
    assert native("0:(sqrt(t-5))") == native("0:(1)(2)") == native("0:(1):(2)") == "error"
    assert deforum("0:(1)(2)")[0] == 12
    assert deforum("0:(1):(2)")[0] == 1
    assert deforum("0:(0), -5:(1)")[56] == 0
    assert native("0:(0), -5:(1)")[56] == 1


@pytest.mark.parametrize(
    "text",
    [
        "0:(0), 100:(50)", "0:(1/2), 30:(3/2)", "0:( 1 + 0 ), 9:(2)", "0:(sin(t)), 30:(1)", "5:(1), 10:(2)",
        "0:(0), -5:(1)",
    ],
)  # fmt: skip
def test_each_difference_is_warned_of(text):
    assert Schedule.parse(text).warnings(61)


@pytest.mark.parametrize("text", ["0:(0), 60:(50)", "0:(sin(t))", "3 + t", "0:(sin(t), ease=hold), 9:(1)", 3])
def test_nothing_else_is(text):
    assert Schedule(text).warnings(61) == ()


def test_the_error_on_the_page():
    with pytest.raises(ConfigError) as error:
        Schedule("0:(1), 30:(2 + sinn(t))")
    assert str(error.value) in PAGE
