"""The verbs that make a file: generate, animate, keyframes, travel, restyle, extend, render."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinema.cli.options import OutputOptions, ShotOptions, with_options
from kinema.cli.progress import Reporter
from kinema.core.errors import ConfigError

Prompt = Annotated[str, typer.Argument(help="What the clip shows.")]
if TYPE_CHECKING:
    from kinema.pipelines.job import Job

TRAVEL_KEY = re.compile(r"\s*([+-]?\d+(?:\.\d+)?[s%]?)\s*:\s*(.*)", re.DOTALL)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (generate, animate, keyframes, travel, restyle, extend, render):
        app.command()(with_options(verb))


def generate(prompt: Prompt, shot: ShotOptions, output: OutputOptions) -> None:
    """Make a clip (or, with --frames 1, an image) from a prompt."""
    _make({"prompt": prompt, **shot.given()}, output)


def animate(
    image: Annotated[Path, typer.Argument(help="The picture that the clip begins with.")],
    shot: ShotOptions,
    output: OutputOptions,
    prompt: Annotated[str, typer.Argument(help="What happens.")] = "",
) -> None:
    """Bring a still picture to life: it is the clip's first frame."""
    _make({"prompt": prompt, "keyframes": [{"image": str(image), "frame": 0}], **shot.given()}, output)


def keyframes(
    images: Annotated[list[str], typer.Argument(help="IMAGE@FRAME[:STRENGTH] ..., and the prompt last.")],
    shot: ShotOptions,
    output: OutputOptions,
) -> None:
    """Make a clip that shows given pictures at given frames: a.png@0 b.png@12 c.png@-1:0.8 PROMPT."""
    held = [text for text in images if _is_keyframe(text)]
    words = [text for text in images if not _is_keyframe(text)]
    if not held:
        raise ConfigError(
            f"{images[0]!r} has no @FRAME; write pictures like a.png@0 b.png@12, then the prompt."
        )
    if len(words) > 1:
        raise ConfigError(
            f"two prompts, {words[0]!r} and {words[1]!r}; put the prompt in quotes, or @FRAME after a picture."
        )
    _make({"prompt": "".join(words), "keyframes": held, **shot.given()}, output)


def travel(
    prompts: Annotated[list[str], typer.Argument(help='"0: a rooster" "12: a penguin" "2s: a snowman" ...')],
    shot: ShotOptions,
    output: OutputOptions,
    ease: Annotated[
        str, typer.Option("--ease", help="linear, in, out, in_out, hold, cubic-bezier(...), ...")
    ] = "linear",
) -> None:
    """Travel from prompt to prompt inside one clip."""
    keys: dict[str, str] = {}
    for text in prompts:
        match = TRAVEL_KEY.fullmatch(text)
        if match is None:
            raise ConfigError(
                f'{text!r} does not begin with a place; write "0: a rooster", "2s: a penguin" or "50%: a snowman".'
            )
        if match[1] in keys:
            raise ConfigError(f"two prompts at {match[1]}; move one.")
        keys[match[1]] = match[2]
    _make({"prompt": {**keys, "ease": ease}, **shot.given()}, output)


def restyle(
    clip: Annotated[Path, typer.Argument(help="The clip to make over.")],
    prompt: Prompt,
    shot: ShotOptions,
    output: OutputOptions,
    strength: Annotated[str, typer.Option("--strength", help="0 keeps the clip, 1 ignores it.")] = "0.6",
) -> None:
    """Make a clip over: its layout and motion, the prompt's content."""
    _make({"prompt": prompt, "source": {"path": str(clip), "strength": strength}, **shot.given()}, output)


def extend(
    clip: Annotated[Path, typer.Argument(help="The clip to carry on.")],
    shot: ShotOptions,
    output: OutputOptions,
    prompt: Annotated[str, typer.Argument(help="What happens next.")] = "",
    context: Annotated[
        str | None, typer.Option("--context", help="Latent frames of the clip that are held.")
    ] = None,
) -> None:
    """Carry a clip on from its end; the file holds both parts."""
    tail = {"path": str(clip), **({} if context is None else {"context": context})}
    _make({"prompt": prompt, "extend": tail, **shot.given()}, output)


def render(
    file: Annotated[
        Path, typer.Argument(help="A shot or storyboard (YAML, JSON), or a file that kinema made.")
    ],
    shot: ShotOptions,
    output: OutputOptions,
) -> None:
    """Render a shot file or a storyboard, or make a clip again from its record."""
    from kinema.pipelines.source import read_request

    _finish(
        read_request(file, changes=shot.given()),
        output,
        stem=f"{file.stem}-again" if file.suffix not in (".yaml", ".yml", ".json") else file.stem,
    )


def _make(fields: dict[str, Any], output: OutputOptions) -> None:
    from kinema.story.shot import Shot

    shot = Shot.from_mapping(fields)
    words = shot.prompt.constant or " to ".join(key.value for key in shot.prompt.keys)
    _finish(shot, output, stem=slug(words) or "kinema")


def _finish(request: Any, output: OutputOptions, *, stem: str) -> None:
    """Plan, say what will happen, render, write."""
    from kinema.pipelines.job import make_job
    from kinema.pipelines.run import stream

    with Reporter(output.format, quiet=output.quiet) as report:
        job = make_job(request)
        path = output.out or _free_name(stem, job.seed, ".png" if job.is_image else ".mp4")
        _check_suffix(path, job)
        for note in job.notes:
            report.say(note)
        if output.dry_run:
            from kinema.cli.look import show_job

            show_job(job, json_lines=report.json)
            return
        clip = stream(job, on_progress=report, keep_record=not output.no_record)
        clip.save(
            path,
            overwrite=output.overwrite,
            sidecar=output.sidecar,
            quality=output.quality,
            on_note=report.say,
        )
        report.say(
            f"{path}  {job.frames} frame{'s' * (job.frames != 1)}, {job.width}x{job.height}, {job.fps} fps, seed {job.seed}",
            path=str(path),
            seed=job.seed,
        )


def _is_keyframe(text: str) -> bool:
    return re.fullmatch(r".+@[+-]?\d+(?:\.\d+)?[s%]?(?::[\d.]+)?", text, re.DOTALL) is not None


def _check_suffix(path: Path, job: Job) -> None:
    """Refuse to put a clip into a single picture; everything else about the target the writer checks itself."""
    from kinema.io.formats import STILLS

    if not job.is_image and path.suffix.lower() in STILLS and "%" not in path.name:
        raise ConfigError(
            f"{path} is one picture and the clip has {job.frames} frames; add --frames 1, or write {path.stem}.mp4 or "
            f"{path.stem}-%04d{path.suffix}."
        )


def slug(text: str) -> str:
    """The first words of a prompt as a file name."""
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:40].strip("-")


def _free_name(stem: str, seed: int, suffix: str) -> Path:
    """A name in the current folder that no file has."""
    path, number = Path(f"{stem}-s{seed}{suffix}"), 2
    while path.exists():
        path, number = Path(f"{stem}-s{seed}-{number}{suffix}"), number + 1
    return path
