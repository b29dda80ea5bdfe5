"""The verbs that make a file: generate, animate, keyframes, travel, restyle, extend, render."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from kinema.cli.help import VerbCommand
from kinema.cli.interrupt import Interrupted, Interrupts
from kinema.cli.options import OutputOptions, ShotOptions, Variables, with_options
from kinema.cli.progress import Reporter
from kinema.cli.source_options import SourceOptions
from kinema.cli.travel_keys import PLACE, latent_travel, travel_keys
from kinema.cli.values import read_vars
from kinema.core.errors import BusyError, ConfigError, KinemaError, NumericError, unknown_name
from kinema.core.imports import importing

if TYPE_CHECKING:
    from kinema.io.formats import Quality
    from kinema.pipelines.durable.opening import StateOptions
    from kinema.pipelines.durable.state import Facts
    from kinema.pipelines.job import Job
    from kinema.story.shot import Shot
    from kinema.story.storyboard import Storyboard

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What the clip shows.")]
KEYFRAME = re.compile(rf".+@(?:{PLACE})(?::[+-]?[\d.]+)?", re.DOTALL)
SHOT_FILES = (".yaml", ".yml", ".json")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (generate, animate, keyframes, travel, restyle, extend, render):
        app.command(cls=VerbCommand, rich_help_panel="Make a file")(with_options(verb))


def generate(prompt: Prompt, shot: ShotOptions, output: OutputOptions) -> None:
    """Make a clip (or, with --frames 1, an image) from a prompt.

    \b
    kinema generate "a rooster on a blue background" -o rooster.mp4
    kinema generate "a fox, (walking:1.3)" --negative text --guidance 5 --seconds 2 --seed 7
    """
    _make({"prompt": prompt, **shot.given()}, output)


def animate(
    image: Annotated[
        Path,
        typer.Argument(metavar="IMAGE", help="The picture that the clip begins with.", show_default=False),
    ],
    shot: ShotOptions,
    output: OutputOptions,
    prompt: Annotated[str, typer.Argument(metavar="[PROMPT]", help="What happens.", show_default=False)] = "",
) -> None:
    """Bring a still picture to life: it is the clip's first frame.

    \b
    kinema animate photo.png "a penguin, waddling to the left" -o penguin.mp4
    """
    _make({"prompt": prompt, "keyframes": [{"image": str(image), "frame": 0}], **shot.given()}, output)


def keyframes(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE@FRAME[:STRENGTH]... [PROMPT]",
            help="Pictures, each with its frame (12, 2s, 50% or -1 for the last), and the prompt.",
        ),
    ],
    shot: ShotOptions,
    output: OutputOptions,
) -> None:
    """Make a clip that shows given pictures at given frames.

    A strength below 1 lets the clip drift from its picture.

    \b
    kinema keyframes a.png@0 b.png@8 c.png@-1:0.8 "a penguin becomes a snowman" -o change.mp4
    """
    held = [text for text in images if KEYFRAME.fullmatch(text)]
    words = [text for text in images if not KEYFRAME.fullmatch(text)]
    if not held:
        raise ConfigError(
            f"{images[0]!r} has no @FRAME; write pictures like a.png@0 b.png@12, then the prompt."
        )
    if len(words) > 1:
        raise ConfigError(
            f"two prompts, {words[0]!r} and {words[1]!r}; put the prompt in quotes, or @FRAME after a "
            "picture."
        )
    _make({"prompt": "".join(words), "keyframes": held, **shot.given()}, output)


def travel(
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar='"PLACE: PROMPT"...', help="Prompts, each after its frame, seconds (2s) or share (50%)."
        ),
    ],
    shot: ShotOptions,
    output: OutputOptions,
    ease: Annotated[
        str,
        typer.Option(
            "--ease",
            metavar="NAME",
            help="How one turns into the next: linear (default), in, out, in_out, hold, ...",
            show_default=False,
            rich_help_panel="Travel",
        ),
    ] = "linear",
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="video (default): one clip; image: frames of their own, which morph as the prompt does.",
            show_default=False,
            rich_help_panel="Travel",
        ),
    ] = "video",
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="N,N,...",
            help='With --engine image: seeds to travel between, evenly apart or by frame: "0:(7), 24:(9)".',
            show_default=False,
            rich_help_panel="Travel",
        ),
    ] = None,
) -> None:
    """Travel from prompt to prompt inside one clip, or through the space of an image model.

    \b
    kinema travel "0: a rooster" "8: a penguin" "100%: a snowman" --ease in_out -o travel.mp4
    kinema travel "0: a rooster" "100%: a penguin" --engine image --seeds 7,9,12 -o morph.mp4
    """
    said = shot.given()
    if engine == "image":
        if said.get("mode", "frame_by_frame") != "frame_by_frame":
            raise ConfigError(
                f"--engine image makes frames one by one, and --mode {said['mode']} does not; leave one out."
            )
        said = {"blend": "slerp", **said, **latent_travel(seeds, said.get("redraw", {}))}
    elif engine != "video":
        raise unknown_name("engine", engine, ["video", "image"])
    elif seeds is not None:
        raise ConfigError("--seeds needs --engine image, whose frames have a noise of their own.")
    _make({"prompt": {**travel_keys(prompts), "ease": ease}, **said}, output)


def restyle(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="The clip to make over.", show_default=False)],
    prompt: Prompt,
    source: SourceOptions,
    shot: ShotOptions,
    output: OutputOptions,
) -> None:
    """Make a clip over: its layout and motion, the prompt's content; or only where a mask is white.

    \b
    kinema restyle rooster.mp4 "a penguin on a blue background" --strength 0.7 -o penguin.mp4
    kinema restyle rooster.mp4 "a fox on a blue background" --mask middle.png -o fox.mp4
    kinema restyle rooster.mp4 "a blue background" --size 96x64 --fit pad --mask bars -o wide.mp4
    """
    _make({"prompt": prompt, "source": source.of(clip), **shot.given()}, output)


def extend(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="The clip to carry on.", show_default=False)],
    shot: ShotOptions,
    output: OutputOptions,
    prompt: Annotated[
        str, typer.Argument(metavar="[PROMPT]", help="What happens next.", show_default=False)
    ] = "",
    context: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="N",
            help="Latent frames at the clip's end that the new part is held to.",
            show_default=False,
            rich_help_panel="Extend",
        ),
    ] = None,
) -> None:
    """Carry a clip on from its end; the new file holds both parts.

    The length (--frames or --seconds) is that of the new part.

    \b
    kinema extend rooster.mp4 "a rooster on a blue background" --seconds 2 -o longer.mp4
    """
    tail = {"path": str(clip), **({} if context is None else {"context": context})}
    _make({"prompt": prompt, "extend": tail, **shot.given()}, output)


def render(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A shot or storyboard (.yaml, .json), or a file that kinema made.",
            show_default=False,
        ),
    ],
    shot: ShotOptions,
    output: OutputOptions,
    var: Variables = None,
) -> None:
    """Render a shot file or a storyboard, or make a clip again from its record.

    Options replace what the file says, in every shot of a storyboard.

    \b
    kinema render story.yaml -o story.mp4
    kinema render story.yaml --var "subject=a penguin" -o penguin.mp4
    kinema render rooster.mp4 --seed 8 -o another.mp4
    """
    from kinema.io.names import clip_stem
    from kinema.pipelines.source import read_request

    written = file.suffix.lower() in SHOT_FILES
    request = read_request(file, changes=shot.given(), variables=read_vars(var))
    _finish(request, output, stem=clip_stem(file) if written else f"{file.stem}-again")


def _make(fields: dict[str, Any], output: OutputOptions) -> None:
    from kinema.story.shot import Shot

    shot = Shot.from_mapping(fields)
    _finish(shot, output, stem=_stem(shot))


def _stem(shot: Shot) -> str:
    """A file name from the words of the shot, else from the media that it starts from."""
    words = shot.prompt.constant
    if words is None:
        words = " to ".join(key.value for key in shot.prompt.keys)
    media = [key.image for key in (*shot.keyframes, *shot.look)]
    media += [part.path for part in (shot.source, shot.extend) if part]
    return slug(words) or (slug(Path(media[0]).stem) if media else "") or "kinema"


def _finish(request: Shot | Storyboard, output: OutputOptions, *, stem: str) -> None:
    """Plan, say what was changed, render, write; or go on with an earlier process's state."""
    with importing():  # torch among it
        from kinema.pipelines.durable.opening import seeded
        from kinema.pipelines.hub import watched
        from kinema.pipelines.job import make_job

    with Reporter(output.format, quiet=output.quiet) as report, watched(report):
        before = None if output.no_state else _earlier(request, output, stem, report)
        job = make_job(request if before is None else seeded(request, before.seeds))
        path = output.out or _own_name(before) or _free_name(stem, job)
        ours = before is not None and before.owns(path, sidecar=output.sidecar)
        check_target(path, job, output, ours=ours)
        _check_rest(path, job, output, before)
        if output.dry_run:
            from kinema.cli.show import show_job

            show_job(job, report, output.memory)
            return
        for note in job.notes:
            report.note(note)
        finish(job, request, path, output, report)


def _earlier(request: Shot | Storyboard, output: OutputOptions, stem: str, report: Reporter) -> Facts | None:
    """What an earlier process has kept of the same request."""
    from kinema.pipelines.durable.opening import StateOptions, earlier, earlier_unnamed

    if output.state_dir is not None or output.out is not None:
        found = earlier(request, StateOptions(folder=output.state_dir), output.out, report.note)
    else:
        found = earlier_unnamed(request, Path(), stem)
    if found is not None and not found.finished:
        report.note(f"goes on with {found.out}, which was cut off; --no-state begins anew.")
    return found


def _own_name(before: Facts | None) -> Path | None:
    """The name that an earlier process chose, as it wrote it."""
    if before is None or before.out is None:
        return None
    path = Path(before.out)
    return Path(path.name) if path.parent == Path.cwd() else path


def _free_name(stem: str, job: Job) -> Path:
    return free_name(f"{stem}-s{job.seed}", ".png" if job.is_image else ".mp4")


def finish(
    job: Job,
    request: Shot | Storyboard,
    path: Path,
    output: OutputOptions,
    report: Reporter,
    *,
    only: bool = False,
) -> None:
    """Render and write; a cut-off is told with the command that goes on.

    Args:
        job, request: what is rendered.
        path: the file.
        output: how it is written.
        report: who is told.
        only: refuse to begin anew.
    """
    from kinema.pipelines.durable.opening import StateOptions
    from kinema.pipelines.durable.pace import Every
    from kinema.pipelines.run import write
    from kinema.pipelines.stopwatch import Stopwatch

    every = Every.parse(output.checkpoint_every)
    state = StateOptions(folder=output.state_dir, every=every, off=output.no_state, only=only)
    with Interrupts(report, quiet=output.quiet) as interrupts:
        watch = Stopwatch(interrupts)
        try:
            pace = write(
                job,
                path,
                request=request,
                state=state,
                on_progress=watch,
                keep_record=not output.no_record,
                live=output.live,
                memory=output.memory,
                options=output.lasting(),
                shots_dir=None if output.shots_dir is None else Path(output.shots_dir),
                overwrite=output.overwrite,
                sidecar=output.sidecar,
                quality=cast("Quality", output.quality),  # the writer checks it
                on_note=report.note,
            )
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {_way_on(state, path)}", interrupts.code) from None
        except KinemaError as error:
            kept = not state.off and (state.place(path) / "job.json").exists()
            if kept and not isinstance(error, NumericError | ConfigError | BusyError):
                raise type(error)(f"{error} Go on with: kinema resume {_resumable(state, path)}") from error
            raise
    cost = {} if pace is None else {"checkpoints": pace.count, "checkpoint_seconds": round(pace.spent, 4)}
    cut = any(plan.sampling.shortcuts is not None for plan in job.plans)
    made = {"frames": job.frames, "fps": job.fps, "width": job.width, "height": job.height}
    facts = {"seed": job.seed, **made, **cost, "seconds": report.timed(watch.seconds, said=cut)}
    report.done(f"{path}  {_summary(job)}", path=str(path), **facts)


def _way_on(state: StateOptions, path: Path) -> str:
    """How to go on with a render that was stopped."""
    if state.off or not (state.place(path) / "job.json").exists():
        return "nothing was written."
    return f"go on with: kinema resume {_resumable(state, path)}"


def _resumable(state: StateOptions, path: Path) -> str:
    return shlex.quote(str(path if state.folder is None else state.folder))


def _summary(job: Job) -> str:
    new = "new " * (job.plans[0].given.extend is not None)  # the clip that was carried on is in the file too
    made = f"{job.frames} {new}frame{'s' * (job.frames != 1)}"
    rate = "" if job.is_image else f" at {job.fps} fps"
    return f"{made}{rate}, {job.width}x{job.height}, seed {job.seed}"


def check_target(path: Path, job: Job, output: OutputOptions, *, ours: bool) -> None:
    """Refuse a target that cannot be, before anything is loaded or fetched; what is ours may be replaced."""
    from kinema.io.atomic import sweep
    from kinema.io.formats import STILLS
    from kinema.io.names import is_numbered
    from kinema.io.video_write import check_output

    if path.parent.is_dir():
        sweep(path.parent)
    if not job.is_image and path.suffix.lower() in STILLS and not is_numbered(path):
        stem = path.stem.partition("%")[0] or "clip"
        raise ConfigError(
            f"{path} is one picture and the clip has {job.frames} frames; add --frames 1, or write "
            f"{stem}.mp4 or {stem}-%04d.png."
        )
    quality = cast("Quality", output.quality)  # the writer checks it
    check_output(
        path, fps=job.fps, overwrite=output.overwrite or ours, quality=quality, sidecar=output.sidecar
    )


def _check_rest(path: Path, job: Job, output: OutputOptions, before: Facts | None) -> None:
    """Refuse what a plan does not show and a render would; files of shots made `before` are its own."""
    from kinema.pipelines.durable.pace import Every
    from kinema.pipelines.residency.fit import check_memory
    from kinema.pipelines.shot_files import check_shots_dir

    Every.parse(output.checkpoint_every)
    check_memory(output.memory)
    if output.shots_dir is not None:
        quality = cast("Quality", output.quality)
        check_shots_dir(
            job,
            Path(output.shots_dir),
            path.suffix,
            overwrite=lambda file: output.overwrite or (before is not None and before.owns_shot(file)),
            quality=quality,
        )


def slug(text: str) -> str:
    """The first words of a prompt as a file name: `A fox, running!` gives `a-fox-running`."""
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:40].strip("-")


def free_name(stem: str, suffix: str) -> Path:
    """A name in the current folder that no file has: `stem.mp4`, else `stem-2.mp4`, ..."""
    path, number = Path(f"{stem}{suffix}"), 2
    while path.exists():
        path, number = Path(f"{stem}-{number}{suffix}"), number + 1
    return path
