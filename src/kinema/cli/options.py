"""The options that every verb which makes a clip shares, written once.

Values stay text until the shot checks them, so that a wrong one gets the shot's own message.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

CLIP, SAMPLING, OUTPUT = "Clip", "Sampling", "Output"


def _option(*names: str, help: str, panel: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False)


@dataclass(frozen=True, kw_only=True)
class ShotOptions:
    """What a shot can be told on the command line; None is not said."""

    model: Annotated[
        str | None, _option("--model", "-m", help="embedded, a folder, or a hub id.", panel=CLIP)
    ] = None
    negative: Annotated[
        str | None, _option("--negative", "-n", help="What the clip should not show.", panel=CLIP)
    ] = None
    size: Annotated[str | None, _option("--size", help="WIDTHxHEIGHT in pixels.", panel=CLIP)] = None
    frames: Annotated[
        str | None, _option("--frames", help="Length in frames; 1 gives an image.", panel=CLIP)
    ] = None
    seconds: Annotated[
        str | None, _option("--seconds", help="Length in seconds, in place of frames.", panel=CLIP)
    ] = None
    fps: Annotated[
        str | None, _option("--fps", help="Frames per second: 24, 29.97, 30000/1001.", panel=CLIP)
    ] = None
    seed: Annotated[
        str | None,
        _option("--seed", "-s", help="Same seed, same clip; drawn and printed when absent.", panel=CLIP),
    ] = None
    fit: Annotated[
        str | None, _option("--fit", help="Pictures of another shape: crop, pad or stretch.", panel=CLIP)
    ] = None
    length_fit: Annotated[
        bool,
        _option("--fit-length", help="Make the next legal length and trim to the one asked for.", panel=CLIP),
    ] = False
    steps: Annotated[str | None, _option("--steps", help="Sampling steps.", panel=SAMPLING)] = None
    guidance: Annotated[
        str | None,
        _option(
            "--guidance", "-g", help="How strongly the prompt acts; a number or a schedule.", panel=SAMPLING
        ),
    ] = None
    guidance_method: Annotated[
        str | None, _option("--guidance-method", help="cfg, cfg-zero or apg.", panel=SAMPLING)
    ] = None
    guidance_rescale: Annotated[str | None, _option("--guidance-rescale", help="0 to 1.", panel=SAMPLING)] = (
        None
    )
    guidance_interval: Annotated[
        str | None,
        _option("--guidance-interval", help="LOW,HIGH: noise levels where guidance acts.", panel=SAMPLING),
    ] = None
    solver: Annotated[str | None, _option("--solver", help="See kinema models.", panel=SAMPLING)] = None
    grid: Annotated[
        str | None,
        _option(
            "--grid", help="How the noise levels are spaced: wan, diffusers, wan-euler, ...", panel=SAMPLING
        ),
    ] = None
    shift: Annotated[
        str | None, _option("--shift", help="Above 1: more steps at high noise.", panel=SAMPLING)
    ] = None
    blend: Annotated[
        str | None,
        _option("--blend", help="Where prompts mix: attention, embedding or velocity.", panel=SAMPLING),
    ] = None
    device: Annotated[
        str | None, _option("--device", help="auto, cpu, cuda, cuda:1 or mps.", panel=SAMPLING)
    ] = None
    dtype: Annotated[
        str | None, _option("--dtype", help="auto, float32, bfloat16 or float16.", panel=SAMPLING)
    ] = None

    def given(self) -> dict[str, Any]:
        """The shot's fields that were said."""
        said = {
            f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) not in (None, False)
        }
        if "guidance_interval" in said:
            said["guidance_interval"] = said["guidance_interval"].split(",")
        return said


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the result goes and how much is said on the way."""

    out: Annotated[
        Path | None, _option("--out", "-o", help="File to write; its suffix is the format.", panel=OUTPUT)
    ] = None
    overwrite: Annotated[bool, _option("--overwrite", help="Replace an existing file.", panel=OUTPUT)] = False
    quality: Annotated[str, _option("--quality", help="small, medium, high or lossless.", panel=OUTPUT)] = (
        "high"
    )
    no_record: Annotated[
        bool, _option("--no-record", help="Leave the record of the making out of the file.", panel=OUTPUT)
    ] = False
    sidecar: Annotated[
        bool, _option("--sidecar", help="Also write the record beside the file, as JSON.", panel=OUTPUT)
    ] = False
    dry_run: Annotated[bool, _option("--dry-run", help="Print the plan and stop.", panel=OUTPUT)] = False
    format: Annotated[str, _option("--format", help="text, or json: one event a line.", panel=OUTPUT)] = (
        "text"
    )
    quiet: Annotated[bool, _option("--quiet", "-q", help="Say nothing but errors.", panel=OUTPUT)] = False


def with_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb `(own arguments, shot: ShotOptions, output: OutputOptions)` the flags of both groups."""
    groups = {"shot": ShotOptions, "output": OutputOptions}
    own = [p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.name not in groups]
    flags = {name: _parameters(group) for name, group in groups.items()}

    @wraps(verb)
    def command(**values: Any) -> None:
        grouped = {
            name: group(**{p.name: values.pop(p.name) for p in flags[name]}) for name, group in groups.items()
        }
        verb(**values, **grouped)

    parameters = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *flags["shot"], *flags["output"]]
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    del command.__wrapped__  # type: ignore[attr-defined]
    return command


def _parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if f.default is MISSING else f.default,
            annotation=hints[f.name],
        )
        for f in fields(group)
    ]
