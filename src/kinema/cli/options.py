"""The options that several verbs share, written once.

Values stay text until the shot checks them, so that a wrong one gets the shot's own message.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from kinema.cli.values import from_yaml, named_values, option_values, two_levels
from kinema.core.errors import ConfigError

CLIP, FRAMES, SAMPLING, OUTPUT = "Clip", "Frame by frame", "Sampling", "Output"


def _option(*names: str, panel: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, show_default=False)


def _clip(*names: str, help: str, metavar: str | None = None) -> Any:
    return _option(*names, panel=CLIP, help=help, metavar=metavar)


def _sampling(*names: str, help: str, metavar: str) -> Any:
    return _option(*names, panel=SAMPLING, help=help, metavar=metavar)


def _output(*names: str, help: str, metavar: str | None = None) -> Any:
    return _option(*names, panel=OUTPUT, help=help, metavar=metavar)


Text = str | None
AS_WRITTEN = ("model", "solver", "device", "audio", "control_model", "control_mask", "redraw", "options")
"""Names, which may begin with a brace, and lists of NAME=VALUE; all else in braces is read as YAML."""


@dataclass(frozen=True, kw_only=True)
class ShotOptions:
    """What a shot can be told on the command line; None and False are not said."""

    model: Annotated[
        Text, _clip("--model", "-m", metavar="NAME", help="embedded, a folder, or a hub id.")
    ] = None
    negative: Annotated[
        Text, _clip("--negative", "-n", metavar="TEXT", help="What the clip should not show.")
    ] = None
    size: Annotated[Text, _clip("--size", metavar="WxH", help="Width and height in pixels.")] = None
    frames: Annotated[Text, _clip("--frames", metavar="N", help="Length in frames; 1 gives an image.")] = None
    seconds: Annotated[
        Text, _clip("--seconds", metavar="S", help="Length in seconds, in place of frames.")
    ] = None
    fps: Annotated[Text, _clip("--fps", metavar="RATE", help="Frames per second: 24, 29.97, 30000/1001.")] = (
        None
    )
    seed: Annotated[
        Text,
        _clip("--seed", "-s", metavar="N", help="Same seed, same clip; drawn and printed when absent."),
    ] = None
    loop: Annotated[bool, _clip("--loop", help="Let the last frame go on into the first.")] = False
    interpolate: Annotated[
        Text,
        _clip("--interpolate", metavar="RATE", help="Frames per second of the file: 24, or 24:blend."),
    ] = None
    upscale: Annotated[
        Text, _clip("--upscale", metavar="N", help="Larger frames: 4, 4:nearest, or FILE.safetensors.")
    ] = None
    windows: Annotated[
        Text,
        _clip(
            "--windows",
            metavar="KIND",
            help="Clips longer than the model: fuse, continue or whole; or settings by name, as YAML.",
        ),
    ] = None
    fit: Annotated[
        Text, _clip("--fit", metavar="HOW", help="Pictures of another shape: crop, pad or stretch.")
    ] = None
    camera: Annotated[
        Text,
        _clip("--camera", metavar="MOVES", help="zoom in 1.2, pan left, ...; or tracks by name, as YAML."),
    ] = None
    control: Annotated[
        Text,
        _clip("--control", metavar="FILE", help="Picture or clip of edges, depth, ... that frames follow."),
    ] = None
    control_mask: Annotated[
        Text,
        _clip("--control-mask", metavar="FILE", help="For VACE: white is made, black kept."),
    ] = None
    control_model: Annotated[
        Text, _clip("--control-model", metavar="NAME", help="Folder or hub id of the ControlNet for it.")
    ] = None
    control_strength: Annotated[
        Text, _clip("--control-strength", metavar="X", help='How firmly: 1, or "0:(1), 24:(0.3)".')
    ] = None
    look: Annotated[
        list[str] | None,
        _clip("--look", metavar="FILE[@FRAME[:X]]", help="Picture that stands in for words; repeatable."),
    ] = None
    length_fit: Annotated[
        bool,
        _clip(
            "--length-fit",
            "--fit-length",
            help="Make the next legal length and trim it to what was asked for.",
        ),
    ] = False
    audio: Annotated[
        Text, _clip("--audio", metavar="FILE", help="A sound file that plays under the clip.")
    ] = None
    bpm: Annotated[Text, _clip("--bpm", metavar="N", help="Beats per minute, for places such as 8b.")] = None
    dialect: Annotated[
        Text, _clip("--dialect", metavar="NAME", help="How 0:(1), 30:(2) is read: native or deforum.")
    ] = None
    mode: Annotated[
        Text,
        _option(
            "--mode", panel=FRAMES, metavar="NAME", help="joint (default), or frame_by_frame: see --redraw."
        ),
    ] = None
    redraw: Annotated[
        list[str] | None,
        _option(
            "--redraw",
            panel=FRAMES,
            metavar="NAME=VALUE",
            help="Of frame_by_frame, as often as needed: strength=0.5, cadence=2, seed=fixed, "
            '"noise=0:(0.05), 24:(0)", ...',
        ),
    ] = None
    steps: Annotated[
        Text, _sampling("--steps", metavar="N", help="Sampling steps; fewer is faster and rougher.")
    ] = None
    guidance: Annotated[
        Text,
        _sampling(
            "--guidance",
            "-g",
            metavar="X",
            help='How strongly the prompt acts: 4, or "0:(6), 16:(2)"; 1 is off.',
        ),
    ] = None
    guidance_low: Annotated[
        Text,
        _sampling(
            "--guidance-low", metavar="X", help="The same at low noise, for models of two transformers."
        ),
    ] = None
    guidance_method: Annotated[
        Text, _sampling("--guidance-method", metavar="NAME", help="cfg, cfg-zero or apg.")
    ] = None
    guidance_rescale: Annotated[
        Text,
        _sampling("--guidance-rescale", metavar="X", help="0 to 1: takes back contrast that guidance adds."),
    ] = None
    guidance_interval: Annotated[
        Text,
        _sampling(
            "--guidance-interval",
            metavar="LOW,HIGH",
            help="Noise levels, 0 to 1, between which guidance acts.",
        ),
    ] = None
    nag: Annotated[
        Text,
        _sampling(
            "--nag", metavar="X", help="Lead attention away from the negative prompt: 4 to 11; 1 is off."
        ),
    ] = None
    skip_layers: Annotated[
        Text,
        _sampling(
            "--skip-layers",
            metavar="N,..:X",
            help="Lead away from what is drawn without blocks: 9:2.8, 9:negative.",
        ),
    ] = None
    solver: Annotated[
        Text, _sampling("--solver", metavar="NAME", help="euler, unipc, ...; kinema models lists them.")
    ] = None
    grid: Annotated[
        Text,
        _sampling(
            "--grid",
            metavar="NAME",
            help="Spacing of the noise levels: wan, diffusers, ...; of an image model: trailing, ...",
        ),
    ] = None
    shift: Annotated[
        Text, _sampling("--shift", metavar="X", help="Above 1: more of the steps at high noise.")
    ] = None
    speed: Annotated[
        Text,
        _sampling(
            "--speed",
            metavar="TIER",
            help="exact (default); near, fast: the same, sooner; few: in few steps; distilled: by a student.",
        ),
    ] = None
    match: Annotated[
        Text,
        _sampling(
            "--match", metavar="NAME", help="wan or diffusers: that program's defaults, rounding and noise."
        ),
    ] = None
    lora: Annotated[
        list[str] | None,
        _clip(
            "--lora", metavar="FILE[:SCALE]", help="A LoRA, with its scale or a schedule; may be repeated."
        ),
    ] = None
    lora_high: Annotated[
        list[str] | None,
        _clip("--lora-high", metavar="FILE[:SCALE]", help="The same for the transformer of high noise."),
    ] = None
    lora_low: Annotated[
        list[str] | None,
        _clip("--lora-low", metavar="FILE[:SCALE]", help="The same for the transformer of low noise."),
    ] = None
    options: Annotated[
        list[str] | None,
        _sampling(
            "--option",
            metavar="NAME=VALUE",
            help="Of another diffusers pipeline, by its own name: motion_bucket_id=180; may be repeated.",
        ),
    ] = None
    blend: Annotated[
        Text,
        _sampling(
            "--blend", metavar="HOW", help="Where prompts mix: attention, embedding, slerp or velocity."
        ),
    ] = None
    device: Annotated[Text, _sampling("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")] = (
        None
    )
    dtype: Annotated[
        Text, _sampling("--dtype", metavar="NAME", help="auto, float32, bfloat16 or float16.")
    ] = None
    weights: Annotated[
        Text, _sampling("--weights", metavar="NAME", help="full, or in a byte a number: fp8, int8.")
    ] = None

    def given(self) -> dict[str, Any]:
        """The shot's fields that were said, as text, or as values where they were said as `{name: value}`.

        Raises:
            ConfigError: an interval without two ends, or braces that are not YAML.
        """
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        said = {name: value for name, value in said.items() if value is not None and value is not False}
        said |= {name: _read(name, value) for name, value in said.items() if name not in AS_WRITTEN}
        said["loras"] = self._loras(said)
        if not said["loras"]:
            del said["loras"]
        if self.guidance_interval is not None:
            said["guidance_interval"] = two_levels(self.guidance_interval)
        said |= self._control(said)
        if self.options:
            said["options"] = option_values(self.options)
        if self.redraw:
            said |= {"mode": self.mode or "frame_by_frame", "redraw": named_values(self.redraw)}
        return said

    def _control(self, said: dict[str, Any]) -> dict[str, Any]:
        """The control's options as one field."""
        whole = said.pop("control", {})
        parts = {part: said.pop(f"control_{part}", None) for part in ("model", "mask", "strength")}
        found = dict(whole) if isinstance(whole, dict) else {"path": whole}
        found |= {field: value for field, value in parts.items() if value is not None}
        return {"control": found} if found else {}

    def _loras(self, said: dict[str, Any]) -> list[dict[str, Any]]:
        from kinema.story.lora import Lora

        found = []
        for name, expert in (("lora", None), ("lora_high", "high"), ("lora_low", "low")):
            for said_of in said.pop(name, None) or ():
                if isinstance(said_of, dict):
                    found.append(said_of if expert is None else {**said_of, "expert": expert})
                else:
                    found.append(Lora.from_text(said_of, expert).to_mapping())
        return found


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the result goes and how much is said on the way."""

    out: Annotated[
        Path | None,
        _output(
            "--out",
            "-o",
            metavar="FILE",
            help="File to write; the suffix is the format: .mp4 .webm .gif .webp .mov .mkv .png %04d.png",
        ),
    ] = None
    overwrite: Annotated[bool, _output("--overwrite", help="Replace an existing file.")] = False
    quality: Annotated[
        str, _output("--quality", metavar="NAME", help="small, medium, high (default) or lossless.")
    ] = "high"
    no_record: Annotated[bool, _output("--no-record", help="Leave out of the file how it was made.")] = False
    sidecar: Annotated[
        bool, _output("--sidecar", help="Also write how it was made beside the file, as JSON.")
    ] = False
    shots_dir: Annotated[
        Text,
        _output("--shots-dir", metavar="DIR", help="Also write each shot of a storyboard by itself."),
    ] = None
    state_dir: Annotated[
        Path | None,
        _output(
            "--state-dir",
            metavar="DIR",
            help="Where an unfinished render is kept; by default in a hidden folder beside the file.",
        ),
    ] = None
    no_state: Annotated[
        bool, _output("--no-state", help="Keep nothing to go on from when the render is cut off.")
    ] = False
    checkpoint_every: Annotated[
        Text,
        _output(
            "--checkpoint-every",
            metavar="WHEN",
            help="Keep the state every 5 (steps), 30s or 10min; by default at a cost under 1%.",
        ),
    ] = None
    live: Annotated[
        bool, _output("--live", help="Also write FILE.live.mp4, to be watched meanwhile: fox.mp4.live.mp4.")
    ] = False
    memory: Annotated[
        str,
        _output(
            "--memory",
            metavar="NAME",
            help="auto (default), whole, component, block, or low: what is in memory at a time.",
        ),
    ] = "auto"
    dry_run: Annotated[bool, _output("--dry-run", help="Print the plan and stop.")] = False
    format: Annotated[
        str, _output("--format", metavar="NAME", help="text (default), or json: one event a line.")
    ] = "text"
    quiet: Annotated[bool, _output("--quiet", "-q", help="Say nothing but errors.")] = False

    def __post_init__(self) -> None:
        if self.no_state and self.state_dir is not None:
            raise ConfigError("--no-state and --state-dir exclude each other; leave one of them out.")
        refuse_lone_sidecar(no_record=self.no_record, sidecar=self.sidecar)

    def lasting(self) -> dict[str, Any]:
        """What belongs to the output rather than to this call, as JSON values for a later `resume`."""
        passing = ("out", "state_dir", "no_state", "dry_run", "format", "quiet")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in passing}


Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--var",
        metavar="NAME=VALUE",
        help="Another value for a variable of the file, as often as needed.",
        show_default=False,
        rich_help_panel=CLIP,
    ),
]


def _read(name: str, value: Any) -> Any:
    """A value, or each of a list, with what stands in braces read."""
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, list):
        return [from_yaml(text, option) for text in value]
    return from_yaml(value, option) if isinstance(value, str) else value


def refuse_lone_sidecar(*, no_record: bool, sidecar: bool) -> None:
    """`ConfigError` where the record is to be left out and written beside the file."""
    if no_record and sidecar:
        raise ConfigError("--no-record and --sidecar exclude each other; leave one of them out.")


def with_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Turn a verb's parameters that are option groups, such as `shot: ShotOptions`, into their flags.

    What typer sees has the verb's own parameters first, then every flag of each group.
    """
    given = inspect.signature(verb, eval_str=True).parameters.values()
    own = [p for p in given if not is_dataclass(p.annotation)]
    groups: dict[str, Any] = {p.name: p.annotation for p in given if is_dataclass(p.annotation)}
    flags = {name: _flags(group) for name, group in groups.items()}

    @wraps(verb)
    def command(**values: Any) -> None:
        grouped = {
            name: group(**{flag.name: values.pop(flag.name) for flag in flags[name]})
            for name, group in groups.items()
        }
        verb(**values, **grouped)

    every = [*own, *(flag for group in flags.values() for flag in group)]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in every]
    # typer reads the signature and the annotations; `wraps` would send it to the verb's own
    vars(command).pop("__wrapped__")
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


@cache  # verbs share them, and to read annotations is a tenth of the time of `kinema --help`
def _flags(group: type) -> tuple[inspect.Parameter, ...]:
    hints = get_type_hints(group, include_extras=True)
    return tuple(
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if f.default is MISSING else f.default,
            annotation=hints[f.name],
        )
        for f in fields(group)
    )
