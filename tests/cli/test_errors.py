"""Every mistake gets one line: the value, the rule, the way out. No weights are read, nothing is left."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import pytest

import kinema.cli
from kinema.core.errors import KinemaError

ROOT = Path(__file__).parents[2]
G = ("generate", "a rooster")
PLACE = "past the end: the last of 25 frames is 24"
NO_RECORD = "carries no record"

MISTAKES: dict[tuple[str, ...], tuple[str, ...]] = {
    # numbers out of range, not finite, not numbers
    (*G, "--steps", "0"): ("steps='0' is out of range", "1 to 1000"),
    (*G, "--steps", "-3"): ("steps='-3' is out of range", "1 to 1000"),
    (*G, "--steps", "1.5"): ("steps='1.5' is not a whole number", "1 to 1000"),
    (*G, "--seed", "x"): ("seed='x' is not a whole number", "write -1 to"),
    (*G, "--seed", "-5"): ("seed='-5' is out of range", "write -1 to"),
    (*G, "--shift", "0"): ("shift='0' is out of range", "more than 0, up to 1000"),
    (*G, "--shift", "nan"): ("shift='nan' is not finite", "more than 0, up to 1000"),
    (*G, "--seconds", "inf"): ("seconds='inf' is not finite", "more than 0, up to 3600"),
    (*G, "--seconds", "-1"): ("seconds='-1' is out of range", "more than 0, up to 3600"),
    (*G, "--fps", "0"): ("fps=0 is out of range", "0.1 to 1000"),
    (*G, "--fps", "1/0"): ("fps='1/0' is not a frame rate", "30000/1001"),
    (*G, "--guidance-rescale", "2"): ("guidance_rescale='2' is out of range", "0 to 1"),
    (*G, "--guidance-interval", "0.5"): ("guidance_interval='0.5' is not two noise levels", "0.1,0.9"),
    (*G, "--guidance-interval", "0.8,0.2"): ("(0.8, 0.2) is upside down", "lower level first"),
    ("restyle", "c.mp4", "x", "--strength", "2"): ("strength='2' is out of range", "0 to 1"),
    ("restyle", "c.mp4", "x", "--mask", "none.png"): ("cannot read 'none.png'",),
    ("restyle", "c.mp4", "x", "--mask", "bars"): ("fit: pad leaves open", "fit: crop"),
    ("restyle", "c.mp4", "x", "--mask-feather", "3"): ("does nothing without source.mask",),
    ("restyle", "c.mp4", "x", "--strength", "nan"): ("strength='nan' is not finite", "0 to 1"),
    ("extend", "c.mp4", "--context", "0"): ("context='0' is out of range", "1 to 1024"),
    ("keyframes", "a.png@0:2"): ("strength='2' is out of range", "0 to 1"),
    # sizes and lengths, with the nearest that fit
    (*G, "--size", "65x64"): ("width=65 is not a multiple of 8", "64 and 72"),
    (*G, "--size", "64x3"): ("height=3 is out of range", "8 to 16384"),
    (*G, "--size", "64"): ("size='64' is not a size", "WIDTHxHEIGHT"),
    (*G, "--size", "16384x16384"): ("16384x16384", "above 8,000,000", "smaller size"),
    (*G, "--frames", "18"): ("frames=18 is not 1 + a multiple of 4", "17 and 21", "length_fit"),
    (*G, "--frames", "100000"): ("frames=100000 is not", "the nearest length is 99997 (or"),
    (*G, "--frames", "0"): ("frames='0' is out of range", "1 to 100000"),
    (*G, "--frames", "9", "--seconds", "1"): ("frames=9 and seconds=1 exclude each other", "write one"),
    ("extend", "c.mp4", "--frames", "9"): ("frames=9 is not a multiple of 4", "8 and 12", "length_fit"),
    ("keyframes", "a.png@0:-1", "a fox"): ("keyframes[0].strength='-1' is out of range", "0 to 1"),
    ("generate", "-a fox"): ("No such option", "after --"),
    # unknown names, with the nearest right one
    (*G, "--solver", "UniPC"): ("unknown solver 'UniPC'", "Did you mean 'unipc'?"),
    (*G, "--solver", "eulr"): ("unknown solver 'eulr'", "Did you mean 'euler'?"),
    (*G, "--grid", "wann"): ("unknown grid 'wann'", "Did you mean 'wan'?"),
    (*G, "--blend", "atention"): ("unknown blend 'atention'", "Did you mean 'attention'?"),
    (*G, "--fit", "corp"): ("unknown fit 'corp'", "Did you mean 'crop'?"),
    (*G, "--guidance-method", "cgf"): ("'cgf'", "Did you mean 'cfg'?"),
    (*G, "--dtype", "float31"): ("unknown dtype 'float31'", "Did you mean 'float32'?"),
    (*G, "--device", "gpu"): ("device='gpu' is unknown", "write auto, cpu, cuda"),
    (*G, "--quality", "best"): ("unknown quality 'best'", "high, lossless, medium, small"),
    (*G, "--format", "xml"): ("unknown format 'xml'", "json, text"),
    ("travel", "0: a", "8: b", "--ease", "inn_out"): ("unknown easing 'inn_out'", "Did you mean 'in_out'?"),
    # settings that are mappings, and where the state is kept
    (*G, "--redraw", "seed=banana"): ("unknown redraw.seed 'banana'", "schedule, travel."),
    (*G, "--redraw", "stength=1"): ("unknown redraw setting 'stength'", "Did you mean 'strength'?"),
    (*G, "--windows", "{length: 18}"): ("windows.length=18", "17 and 21"),
    (*G, "--windows", "{lenght: 17}"): ("unknown windows setting 'lenght'", "Did you mean 'length'?"),
    (*G, "--no-record", "--sidecar"): ("--no-record and --sidecar exclude each other", "leave one"),
    ("interpolate", "c.mp4", "--no-record", "--sidecar"): ("--no-record and --sidecar exclude each other",),
    ("travel", "0: a", "8: b", "--engine", "image", "--mode", "joint"): ("--engine image", "--mode joint"),
    ("plan", "a fox", "--var", "s=b"): ("--var is for the variables of a shot file", "'a fox' is a prompt"),
    ("models", "list", "extra"): ("kinema models list is followed by 'extra'", "leave that out"),
    ("upscale", "c.mp4", "--device", "gpu"): ("--device gpu is for a network", "--model FILE"),
    (*G, "--dry-run", "--memory", "tiny"): ("unknown memory 'tiny'", "auto, block"),
    (*G, "--dry-run", "--checkpoint-every", "nan"): ("checkpoint_every='nan' is no interval", "30s or 10min"),
    (*G, "--dry-run", "--shots-dir", "c.mp4"): ("shots_dir='c.mp4'", "is a file; write a folder"),
    (*G, "--dry-run", "--shots-dir", "c.mp4/x"): ("shots_dir='c.mp4/x'", "is a file; write a folder"),
    (*G, "--state-dir", "a.png"): ("state_dir='a.png' is a file", "folder"),
    (*G, "--no-state", "--state-dir", "b"): ("--no-state and --state-dir exclude each other",),
    (*G, "--camera", "{zoom: [}"): ("--camera '{zoom: [}': line 1: not YAML",),
    (*G, "--upscale", "{scale: 2"): ("--upscale '{scale: 2': line 1: not YAML",),
    (*G, "--look", "{image: [}"): ("--look '{image: [}': line 1: not YAML",),
    (*G, "--redraw", "seeds={0: ["): ("--redraw '{0: [': line 1: not YAML",),
    (*G, "--fps", "8", "--interpolate", "0"): ("interpolate.fps=0 is out of range", "0.1 to 1000"),
    (*G, "--interpolate", "x"): ("interpolate.fps='x' is not a frame rate", "30000/1001"),
    (*G, "--camera", "{depth: no.png, speed: {x: 0.1}}"): ("cannot read 'no.png'", "check the path"),
    # schedules, prompts and places
    (*G, "--guidance", "0:(1"): ("guidance", "'(' is never closed", "(at '(1')"),
    (*G, "--guidance", "nan"): ("unknown name 'nan'", "Available: "),
    (*G, "--guidance", "flor(t)"): ("unknown function 'flor'", "Did you mean 'floor'?"),
    (*G, "--guidance", "0:(1), -99:(2)"): ("-99", "before the start"),
    ("generate", "a (fox"): ("prompt", "( is never closed", r"write \(", "(at '(fox')"),
    ("generate", "a" * 40_000): ("40000 characters", "the most is 32000"),
    ("travel", "a rooster"): ("'a rooster' does not begin with a place", '"0: a rooster"'),
    ("travel", "0: a", "0: b"): ("two prompts at 0", "move one"),
    ("travel", "0: a", "99: b"): ("99", PLACE),
    ("keyframes", "a.png@99"): ("99", PLACE),
    ("keyframes", "a.png", "words"): ("'a.png' has no @FRAME", "a.png@0 b.png@12"),
    ("keyframes", "a.png@0", "one", "two"): ("two prompts, 'one' and 'two'", "in quotes"),
    ("keyframes", "a.png@0", "a.png@0"): ("both at 0", "move one"),
    ("keyframes", "a.png@1", "a.png@2"): ("share latent frame 1", "at least 4 frames apart"),
    # media that cannot be read
    ("animate", "none.png"): ("cannot read 'none.png'", "No such file"),
    ("animate", "folder"): ("cannot read 'folder'", "not a regular file", "give a picture"),
    ("animate", "text.png"): ("cannot read 'text.png'", "no picture", "PNG"),
    ("animate", "cut-a.png"): ("cannot read 'cut-a.png'", "truncated"),
    ("restyle", "none.mp4", "x"): ("cannot read 'none.mp4'", "No such file"),
    ("restyle", "text.mp4", "x"): ("'text.mp4' is no video", "give MP4"),
    ("restyle", "folder", "x"): ("'folder' holds no pictures", "give a video"),
    ("restyle", "cut-c.mp4", "x"): ("cannot read 'cut-c.mp4'",),
    ("extend", "none.mp4"): ("cannot read 'none.mp4'", "No such file"),
    # requests that cannot be read
    ("render", "none.yaml"): ("none.yaml does not exist", ".yaml, .json"),
    ("render", "bad.yaml"): ("bad.yaml: line 1", "not YAML"),
    ("render", "odd.yaml"): ("odd.yaml: unknown setting 'promt'", "Did you mean 'prompt'?"),
    ("render", "c.mp4"): ("c.mp4 carries no record", "--no-record"),
    ("plan", "none.yaml"): ("none.yaml does not exist", ".yaml, .json"),
    ("plan", "none.mp4"): ("none.mp4 does not exist", "a clip that kinema made"),
    ("plan", "a rooster", "--frames", "18"): ("frames=18", "17 and 21"),
    ("inspect", "none.mp4"): ("none.mp4 does not exist", "a file that kinema made"),
    ("inspect", "folder"): ("folder carries no record", "--no-record"),
    ("inspect", "/dev/null"): ("/dev/null is not a file", "a file that kinema made"),
    ("inspect", "text.png"): (f"text.png {NO_RECORD}", "--no-record"),
    # models
    (*G, "--model", "embeded"): ("unknown model 'embeded'", "Did you mean 'embedded'?"),
    (*G, "--model", "./nowhere"): ("'./nowhere' is not a folder", "hub id (owner/name)"),
    (*G, "--model", "folder"): ("model_index.json is missing", "Check the path"),
    ("models", "embeded"): ("unknown model 'embeded'", "Did you mean 'embedded'?"),
    # where the result would go
    (*G, "-o", "x.mpg"): ("unknown file suffix '.mpg'", ".mp4, .mov"),
    (*G, "-o", "x"): ("'x' has no suffix", "write 'x.mp4'", ".mov, .webm"),
    (*G, "-o", "folder"): ("'folder' is a folder", "'folder/clip.mp4'"),
    (*G, "-o", "-"): ("not written to standard output", "write clip.mp4"),
    (*G, "-o", "folder/.mp4"): ("'folder/.mp4' is a suffix without a name", "write 'folder/clip.mp4'"),
    (*G, "-o", "x.png"): ("x.png is one picture and the clip has 25 frames", "--frames 1", "x-%04d.png"),
    (*G, "-o", "a%5d.png"): ("a%5d.png is one picture and the clip has 25 frames", "a.mp4 or a-%04d.png"),
    (*G, "-o", "100%.png", "--dry-run"): ("100%.png is one picture", "100.mp4 or 100-%04d.png"),
    (*G, "-o", "a%s-%04d.png"): ("'a%s-%04d.png' is no numbered name", "frames/%04d.png"),
    (*G, "-o", "a%04d.jpg"): ("a%04d.jpg is one picture", "a-%04d.png"),
    (*G, "-o", "c.mp4"): ("'c.mp4' exists", "add --overwrite (overwrite=True)"),
    ("interpolate", "c.mp4", "-o", "c.mp4"): ("'c.mp4' exists", "add --overwrite (overwrite=True)"),
    ("calibrate", "embedded", "--frames", "10"): ("frames=10 is not 1 + a multiple of 4", "9 and 13"),
    ("calibrate", "embedded", "--clips", "0"): ("'--clips'", "1", "kinema calibrate --help"),
    ("calibrate", "embedded", "--clips", "13"): ("--clips 13 is more than the 12 prompts", "--prompts FILE"),
    ("calibrate", "embedded", "--steps", "5", "--guidance", "1"): ("leave nothing to be saved",),
    ("serve", "--port", "0", "--model", "embeded"): ("unknown model 'embeded'", "Did you mean 'embedded'?"),
    ("studio", "--port", "0", "--model", "./nowhere"): ("'./nowhere' is not a folder",),
    ("evaluate", "--out", "x.mp4"): ("'x.mp4' does not end in .json",),
    ("evaluate", "--out", "x.md"): ("'x.md' does not end in .json",),
    ("evaluate", "--out", "a.json"): ("'a.png' exists", "add --overwrite (overwrite=True)"),
    ("evaluate", "--out", "a.png/x.json"): ("cannot make the folder 'a.png'",),
    ("evaluate", "--steps", "0"): ("steps=0 is out of range", "1 to 1000"),
    (*G, "-o", "no/x.mp4"): ("cannot write 'no/x.mp4'", "does not exist", "make it first"),
    (*G, "-o", "c.mp4/x.mp4"): ("cannot write 'c.mp4/x.mp4'", "'c.mp4' is no folder; choose another"),
    (*G, "-o", "c.mp4/no/x.mp4"): ("cannot write 'c.mp4/no/x.mp4'", "'c.mp4' is no folder"),
    (*G, "-o", "x.mp4", "--quality", "lossless"): ("quality='lossless' is not possible with h264", ".mkv"),
    (*G, "-o", "x.gif", "--fps", "60"): ("fps=60 is above 50", ".webp or .mp4"),
    # the command itself
    ("generat", "a rooster"): ("No such command 'generat'", "'generate'", "kinema --help"),
    ("generate",): ("Missing argument 'PROMPT'", "kinema generate --help"),
    ("restyle", "c.mp4"): ("Missing argument 'PROMPT'", "kinema restyle --help"),
    (*G, "--stepz", "3"): ("No such option: --stepz", "--steps", "kinema generate --help"),
    (*G, "--steps"): ("--steps", "requires an argument", "kinema generate --help"),
    (*G, "and more"): ("and more", "kinema generate --help"),
}


@pytest.mark.parametrize("argv", MISTAKES, ids=lambda argv: " ".join(argv)[:60])
def test_one_line_says_what_is_wrong(argv, files, no_weights, capsys):
    assert kinema.cli.run(list(argv)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", printed.err), printed.err
    for part in MISTAKES[argv]:
        assert part in printed.err
    assert files() == set()


def test_a_device_that_is_not_there(files, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("kinema.pipelines.model.load_dit", lambda *_: pytest.fail("weights were loaded"))
    assert kinema.cli.run([*G, "--device", "cuda"]) == 2
    assert "device='cuda' is not available on this machine; use 'auto' or 'cpu'." in capsys.readouterr().err
    assert files() == set()


def test_a_folder_that_cannot_be_written(files, no_weights, monkeypatch, capsys):
    def refuse(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert kinema.cli.run([*G, "-o", "x.mp4"]) == 2
    assert re.search(r"cannot write in '.*': Permission denied; choose another", capsys.readouterr().err)
    assert files() == set()


@pytest.mark.parametrize(
    "argv",
    [
        ("plan", "shut/a.yaml"),
        ("inspect", "shut/a.png"),
        ("resume", "shut/c.mp4"),
        ("preview", "shut/c.mp4"),
        (*G, "-o", "shut/c.mp4"),
        ("interpolate", "c.mp4", "-o", "shut/c.mp4"),
    ],
    ids=" ".join,
)
def test_a_folder_that_may_not_be_entered(argv, here, no_weights, monkeypatch, capsys):
    (here / "shut").mkdir()
    stat = os.stat

    def refused(path: object, *args: object, **options: object) -> os.stat_result:
        if str(path).startswith(("shut/", ".shut")) or f"{here}/shut/" in str(path):  # root may enter any
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr("os.stat", refused)
    assert kinema.cli.run(list(argv)) == 2
    printed = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]+\n", printed), printed
    assert "shut" in printed
    assert "ermission denied" in printed


@pytest.mark.parametrize("number", ["EACCES", "EPERM", "ENOTDIR", "EROFS"])
def test_the_system_refuses_a_place(number, monkeypatch, capsys):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)), "shut/a.png")

    monkeypatch.setattr("kinema.pipelines.job.make_job", refuse)
    assert kinema.cli.run([*G, "--dry-run"]) == 2
    told = os.strerror(getattr(errno, number)).lower()
    line = f"error: 'shut/a.png': {told}; it may not be read or entered; choose another place.\n"
    assert capsys.readouterr().err == line


def test_a_server_that_is_not_installed_is_installed_as_the_docs_say(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    assert kinema.cli.run(["serve", "--port", "0"]) == 2
    way = 'pip install -c constraints.txt ".[server]"'
    assert way in capsys.readouterr().err
    for page in ("README.md", "docs/studio.md", "docs/server.md"):
        assert way in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("save", "message"),
    [
        ({"out": "q.png"}, "q.png holds one frame and the clip has more"),
        ({"out": "c.mp4"}, r"'c.mp4' exists; .* add --overwrite \(overwrite=True\)"),
        ({"out": "q.mp4", "quality": "best"}, "unknown quality 'best'"),
        ({"out": "q.mp4", "codec": "vp9"}, "vp9"),
        ({"out": "no/q.mp4"}, "does not exist; make it first"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_python_refuses_a_file_before_weights_are_read(save, message, files, no_weights):
    with pytest.raises(KinemaError, match=message):
        kinema.render(kinema.Shot.make(prompt="a", frames=5, steps=2, seed=1), **save)
    assert files() == set()


def test_a_model_that_may_not_be_read_is_not_to_be_fetched_again(here, monkeypatch, capsys):
    (here / "noexec").mkdir()
    stat = Path.stat

    def refused(path: Path, **options: bool) -> os.stat_result:
        if path.name == "model_index.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refused)
    assert kinema.cli.run(["models", "./noexec"]) == 2
    printed = capsys.readouterr().err
    assert "noexec/model_index.json may not be read (permission denied); allow it" in printed


def test_an_output_folder_that_takes_no_files_is_not_mended_by_another_state_folder(
    here, no_weights, monkeypatch, capsys
):
    (here / "shut").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: "shut" not in str(path))
    assert kinema.cli.run([*G, "-o", "shut/x.mp4"]) == 2
    assert capsys.readouterr().err == "error: cannot write in 'shut'; choose another folder.\n"
    assert kinema.cli.run([*G, "-o", "x.mp4", "--state-dir", "shut/s"]) == 2
    assert "choose another state folder, or keep none" in capsys.readouterr().err


def test_an_unreadable_model_folder_is_named(here, no_weights, capsys):
    (here / "broken").mkdir()
    (here / "broken" / "model_index.json").write_text("{")
    assert kinema.cli.run(["models", "broken"]) == 2
    assert "model_index.json cannot be read as JSON" in capsys.readouterr().err


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("kinema.pipelines.job.make_job", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        kinema.cli.run([*G, "--dry-run"])


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("plain", "plain"),
        ("wrong\n  0:(1\n    ^", "wrong (at '(1')"),
        ("a\nb", "a b"),
        ("", ""),
    ],
)
def test_messages_fit_on_one_line(message, line):
    assert kinema.cli.one_line(message) == line


def test_a_home_that_no_shell_has_opened_is_written_out(here, monkeypatch, capsys):
    """`--out=~/x.mp4` reaches a program as it is; nobody is told to make a folder called ~."""
    monkeypatch.setenv("HOME", str(here / "folder"))
    assert kinema.cli.run([*G, "--out=~/x.mp4"]) == 2
    printed = capsys.readouterr().err
    assert f"write '{here / 'folder' / 'x.mp4'}'." in printed
    assert "make it first" not in printed
    assert kinema.cli.run([*G, "--out=~/no/x.mp4"]) == 2
    assert "the folder '~/no' does not exist; make it first" in capsys.readouterr().err
