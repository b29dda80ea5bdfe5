"""Help comes at once, without torch, and shows every option of every verb under its section."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kinema.cli

MAKE = ("generate", "animate", "keyframes", "travel", "restyle", "extend", "render")
LOOK = ("preview", "plan", "inspect", "schema", "models", "import", "calibrate", "doctor")
# pydantic is not among them: typer itself imports it where it is installed
HEAVY = ("torch", "diffusers", "transformers", "rich", "tqdm", "numpy", "PIL", "yaml")


def test_help_imports_nothing_heavy():
    program = (
        "import sys, kinema.cli\n"
        "for argv in ([], ['--help'], ['generate', '--help'], ['plan', '-h'], ['--version']):\n"
        "    assert kinema.cli.run(argv) == 0, argv\n"
        f"sys.exit(','.join(name for name in {HEAVY!r} if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stderr.strip() == ""
    assert "Usage: kinema [OPTIONS]" in done.stdout


def test_the_program_lists_every_verb_with_a_whole_sentence(capsys):
    assert kinema.cli.run([]) == 0
    bare = capsys.readouterr().out
    assert kinema.cli.run(["--help"]) == 0
    assert capsys.readouterr().out == bare
    made, looked = bare.split("Make a file:")[1].split("Look:")
    verbs = [line.split()[0] for line in made.splitlines() if line[:3].strip()]
    assert verbs[: len(MAKE)] == list(MAKE)
    assert {"interpolate", "resume"} <= set(verbs)
    assert all(f"\n  {verb} " in looked for verb in LOOK)
    assert "..." not in made + looked


@pytest.mark.parametrize("verb", MAKE)
def test_verbs_that_make_show_their_sections_and_an_example(verb, capsys):
    assert kinema.cli.run([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: kinema {verb} [OPTIONS] " in text
    assert f"\n  kinema {verb} " in text
    order = [text.index(f"\n{title}:\n") for title in ("Arguments", "Clip", "Sampling", "Output", "Other")]
    assert order == sorted(order)
    for option in ("--size WxH", "--steps N", "--out FILE", "--dry-run", "-h, --help"):
        assert option in text
    assert "<str>" not in text
    assert "{" not in text


@pytest.mark.parametrize("verb", MAKE[:-1])
def test_the_example_in_the_help_is_understood(verb, capsys, here, no_weights, monkeypatch):
    """Run with --dry-run, on the media at hand in place of those it names."""
    import shlex

    assert kinema.cli.run([verb, "--help"]) == 0
    text = capsys.readouterr().out
    example = next(line for line in text.splitlines() if line.startswith(f"  kinema {verb} "))
    for name, stand_in in (
        ("photo.png", "a.png"),
        ("b.png", "a.png"),
        ("c.png", "a.png"),
        ('rooster.mp4 "', 'c.mp4 "'),
    ):
        example = example.replace(name, stand_in)
    assert kinema.cli.run([*shlex.split(example)[1:], "--dry-run"]) == 0
    assert "  work " in capsys.readouterr().out


def test_a_group_of_verbs_alone_prints_its_help(capsys):
    assert kinema.cli.run(["lora"]) == 0
    bare = capsys.readouterr()
    assert bare.err == ""
    assert kinema.cli.run(["lora", "--help"]) == 0
    assert capsys.readouterr().out == bare.out
    assert "\n  inspect  " in bare.out
    assert "\n  convert  " in bare.out


def test_version(capsys):
    assert kinema.cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"kinema {kinema.__version__}\n"
