"""The verb that makes a clip larger: upscale."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from kinema.cli.help import VerbCommand
from kinema.cli.interpolate import FileOptions, new_name, write_clip, writing
from kinema.cli.options import with_options
from kinema.cli.progress import Reporter
from kinema.core.errors import ConfigError


def _option(*names: str, help: str, metavar: str) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel="Upscale", show_default=False)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(cls=VerbCommand, rich_help_panel="Make a file")(with_options(upscale))


def upscale(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="The clip.", show_default=False)],
    file: FileOptions,
    scale: Annotated[
        str | None,
        _option("--scale", metavar="N", help="Times as large: 4, 1.5; 2, or what the network is for."),
    ] = None,
    method: Annotated[
        str, _option("--method", metavar="NAME", help="lanczos (default), bicubic or nearest.")
    ] = "lanczos",
    model: Annotated[
        Path | None,
        _option("--model", metavar="FILE", help="An ESRGAN or Real-ESRGAN network, as .safetensors."),
    ] = None,
    device: Annotated[
        str, _option("--device", metavar="NAME", help="Of a network: auto, cpu, cuda, cuda:1 or mps.")
    ] = "auto",
) -> None:
    """Make a clip larger, by resampling or by a network.

    \b
    kinema upscale rooster.mp4 --scale 4 -o large.mp4
    """
    from kinema.io.video_write import fastest
    from kinema.pipelines.upscale_clip import upscale_clip
    from kinema.story.upscale import Upscale

    if model is None and device != "auto":
        raise ConfigError(
            f"--device {device} is for a network, and resampling has none; leave it out, or add --model FILE."
        )
    times = {"scale": scale or "2"} if scale or model is None else {}
    wanted = Upscale.make(method=method, **times, **({} if model is None else {"model": model}))
    out = file.out or new_name(clip, "large")
    kept = model is not None and not file.dry_run
    with writing(file, out) as report, _keeping(out, report) if kept else nullcontext():
        made = upscale_clip(
            clip,
            wanted,
            device=device,
            most_fps=fastest(out),
            keep_for=out if kept else None,
            on_progress=report,
        )
        write_clip(made, out, file, report, claimed=kept)


def _keeping(out: Path, report: Reporter) -> AbstractContextManager[None]:
    from kinema.pipelines.upscale_kept import keeping  # brings torch, which resampling does without

    return keeping(out, report.note)
