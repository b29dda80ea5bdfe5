"""A job as text that makes the same clip elsewhere: a command, Python, or a YAML file."""

from __future__ import annotations

import json
import pprint
import shlex
from collections.abc import Mapping
from typing import Any

from kinema.serve.jobs import Job
from kinema.story.files import yaml_text
from kinema.story.variables import escaped

AS = ("cli", "python", "yaml")
_OPTIONS = {
    "negative": "--negative", "frames": "--frames", "seconds": "--seconds", "fps": "--fps", "seed": "--seed",
    "steps": "--steps", "solver": "--solver", "guidance": "--guidance", "shift": "--shift",
    "model": "--model",
}  # fmt: skip
_HEREDOC = "KINEMA"


def snippet(job: Job, form: str) -> str:
    """The text.

    Args:
        job: whose request is written.
        form: one of `AS`.
    """
    values = dict(job.request)
    out = "picture.png" if job.kind == "image" else "clip.mp4"
    if form == "yaml":
        return yaml_text(escaped(values))
    return as_python(values, out) if form == "python" else as_command(values, out)


def as_python(values: Mapping[str, Any], out: str) -> str:
    """A program of a few lines; `media:` names have to become files."""
    kind = "Storyboard" if "shots" in values else "Shot"
    written = pprint.pformat(dict(values), sort_dicts=False, width=100)
    made = f"request = kinema.{kind}.from_mapping({written})"
    return f'import kinema\n\n{made}\nkinema.render(request, out="{out}")\n'


def as_command(values: Mapping[str, Any], out: str) -> str:
    """One command where options say all of it; else a file and a command."""
    prompt = values.get("prompt", "")
    sides = [values.get(side) for side in ("width", "height")]
    size = () if None in sides else ("width", "height")  # --size says both; no option says one
    rest = {name: value for name, value in values.items() if name not in ("prompt", *size)}
    plain = isinstance(prompt, str) and all(
        name in _OPTIONS and isinstance(value, str | int | float) for name, value in rest.items()
    )
    if not plain:
        text = yaml_text(escaped(dict(values)))
        return f"cat > shot.yaml <<'{_HEREDOC}'\n{text}{_HEREDOC}\nkinema render shot.yaml -o {out}\n"
    words = ["kinema", "generate"]
    if size:
        words += ["--size", "x".join(map(str, sides))]
    for name, value in rest.items():
        words += [_OPTIONS[name], value if isinstance(value, str) else json.dumps(value)]
    words += ["-o", out, *(["--"] if prompt.startswith("-") else []), prompt]
    return f"{shlex.join(words)}\n"
