"""The verb that changes a clip's rate: interpolate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from kinema.cli.help import VerbCommand
from kinema.cli.make import free_name
from kinema.cli.options import refuse_lone_sidecar, with_options
from kinema.cli.progress import Reporter

if TYPE_CHECKING:
    from kinema.io.clip import Clip


def _option(*names: str, help: str, metavar: str | None = None, panel: str = "Output") -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, show_default=False)


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Where the new clip goes."""

    out: Annotated[
        Path | None, _option("--out", "-o", metavar="FILE", help="File to write; the suffix is the format.")
    ] = None
    overwrite: Annotated[bool, _option("--overwrite", help="Replace an existing file.")] = False
    quality: Annotated[
        str, _option("--quality", metavar="NAME", help="small, medium, high (default) or lossless.")
    ] = "high"
    no_record: Annotated[bool, _option("--no-record", help="Leave out of the file how it was made.")] = False
    sidecar: Annotated[
        bool, _option("--sidecar", help="Also write how it was made beside the file, as JSON.")
    ] = False
    dry_run: Annotated[bool, _option("--dry-run", help="Say what would be made and stop.")] = False
    format: Annotated[
        str, _option("--format", metavar="NAME", help="text (default), or json: one event a line.")
    ] = "text"
    quiet: Annotated[bool, _option("--quiet", "-q", help="Say nothing but errors.")] = False

    def __post_init__(self) -> None:
        refuse_lone_sidecar(no_record=self.no_record, sidecar=self.sidecar)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(cls=VerbCommand, rich_help_panel="Make a file")(with_options(interpolate))


def interpolate(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="The clip.", show_default=False)],
    file: FileOptions,
    fps: Annotated[
        str,
        _option("--fps", metavar="RATE", help="The new rate: 24, 30000/1001.", panel="Interpolate"),
    ] = "24",
    method: Annotated[
        str,
        _option("--method", metavar="NAME", help="flow, minterpolate or blend.", panel="Interpolate"),
    ] = "flow",
    loop: Annotated[
        bool, _option("--loop", help="Let the last frame go on into the first.", panel="Interpolate")
    ] = False,
    device: Annotated[
        str, _option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.", panel="Interpolate")
    ] = "auto",
) -> None:
    """Give a clip more frames a second, drawn in between along the motion.

    \b
    kinema interpolate rooster.mp4 --fps 24 -o smooth.mp4
    """
    from kinema.pipelines.post import interpolate_clip
    from kinema.story.post import Interpolate

    wanted = Interpolate.make(fps=fps, method=method)
    out = file.out or new_name(clip, f"{str(wanted.fps).replace('/', '-')}fps")
    with writing(file, out) as report:
        made = interpolate_clip(clip, wanted, loop=loop, device=device, on_progress=report)
        write_clip(made, out, file, report)


def new_name(clip: Path, what: str) -> Path:
    """A name that no file has, in the current folder: `rooster-large.mp4` for `rooster.mp4`.

    Numbered pictures get a folder of their own, and an animated PNG becomes a WebP.
    """
    from kinema.io.formats import CONTAINERS, STILLS
    from kinema.io.names import frames_of, is_numbered
    from kinema.io.video_read import open_video

    if is_numbered(clip) and frames_of(clip):
        return free_name(f"{clip.resolve().parent.name or 'frames'}-{what}", "") / clip.name
    suffix = clip.suffix if clip.suffix.lower() in (*CONTAINERS, *STILLS) and not clip.is_dir() else ".mp4"
    if suffix.lower() in STILLS and len(open_video(clip)) > 1:
        suffix = ".webp"
    return free_name(f"{clip.stem}-{what}", suffix)


@contextmanager
def writing(file: FileOptions, out: Path) -> Iterator[Reporter]:
    """Refuse a name that is taken, and draw events meanwhile."""
    from kinema.io.atomic import check_target

    if out.is_file():
        check_target(out, overwrite=file.overwrite)
    with Reporter(file.format, quiet=file.quiet) as report:
        yield report


def write_clip(made: Clip, out: Path, file: FileOptions, report: Reporter, *, claimed: bool = False) -> None:
    """Write a clip that is made as it is drawn, or say what it would be, and where it went.

    Args:
        made: the clip.
        out: the file to make.
        file: how.
        report: who is told.
        claimed: whether the caller keeps other processes from writing the file.
    """
    from kinema.io.video_write import check_output

    quality = cast("Any", file.quality)  # the writer checks it
    frames = len(made)
    check_output(
        out, fps=made.fps, frames=frames, overwrite=file.overwrite, quality=quality, sidecar=file.sidecar
    )
    width, height = made.size or (0, 0)
    text = f"{out}  {frames} frame{'s' * (frames != 1)} at {made.fps} fps, {width}x{height}"
    facts = {"frames": frames, "fps": str(made.fps), "width": width, "height": height}
    if not file.dry_run:
        made.record = None if file.no_record else made.record
        made.save(
            out,
            overwrite=file.overwrite,
            sidecar=file.sidecar,
            quality=quality,
            on_note=report.note,
            claimed=claimed,
        )
    report.done(text, path=str(out), **facts)
