"""What `kinema plan` draws: the tracks as a picture, and the preview as a picture or a clip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinema.cli.progress import Reporter
    from kinema.pipelines.job import Job


def draw_plot(job: Job, path: Path, report: Reporter, *, overwrite: bool) -> None:
    """Write the tracks as .png or .svg."""
    from kinema.pipelines.plots import plot

    plot(job).save(path, overwrite=overwrite)
    report.done(str(path), path=str(path))


def draw_preview(job: Job, path: Path, report: Reporter, *, overwrite: bool) -> None:
    """Write the contact sheet as .png or .svg, or the stand-in's clip by another suffix."""
    from kinema.io.names import is_numbered
    from kinema.io.video_write import check_output
    from kinema.pipelines.figure import SUFFIXES, check_figure
    from kinema.pipelines.preview import preview, preview_clip

    if path.suffix.lower() in SUFFIXES and not is_numbered(path):
        check_figure(path, overwrite=overwrite)
        preview(job, on_progress=report).save(path, overwrite=overwrite)
    else:
        check_output(path, fps=job.fps, overwrite=overwrite)
        preview_clip(job, on_progress=report).save(path, overwrite=overwrite, on_note=report.note)
    report.done(f"{path}  {job.length} frames at {job.fps} fps, by a stand-in", path=str(path))
