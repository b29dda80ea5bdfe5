"""What a checkpoint is and can do: the noun that plans are made for.

Known from configuration files alone: no torch, no weights. `cards` reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from kinema.core.contracts import Stride
from kinema.core.errors import ModelError

EMBEDDED = "embedded"
STEM = "diffusion_pytorch_model"
STUDENT = "student/pytorch_lora_weights.safetensors"
EMBEDDED_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "embedded"

Mechanism = Literal["levels", "channels", "none"]
Mode = Literal["text", "image", "first", "last", "keyframes", "strength", "video", "extend", "frame_by_frame"]

MODES: dict[Mode, str] = {
    "text": "text to video",
    "image": "a single image",
    "first": "image to video (a held first frame)",
    "last": "first and last frame",
    "keyframes": "held frames anywhere",
    "strength": "keyframes below full strength",
    "video": "video to video",
    "extend": "extension of a clip",
    "frame_by_frame": "frame by frame (each frame redrawn from the one before)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a shot gets where it says nothing.

    Attributes:
        width, height: pixels.
        frames: pixel frames.
        fps: frames per second, as a fraction's text.
        steps, solver, grid, shift, guidance: of the sampler.
        guidance_low: of the expert that works at low noise, where there are two.
        guidance_held: in place of `guidance` where pictures or the end of a clip are held, if that differs.
        shift_480: in place of `shift` for pictures nearer to 480p than to 720p, where that differs.
    """

    width: int
    height: int
    frames: int
    fps: str
    steps: int
    solver: str
    grid: str
    shift: float
    guidance: float
    guidance_low: float | None = None
    guidance_held: float | None = None
    shift_480: float | None = None

    def shift_of(self, width: int, height: int) -> float:
        """The shift for pictures of this size."""
        small = width * height < (832 * 480 * 1280 * 720) ** 0.5
        return self.shift_480 if small and self.shift_480 is not None else self.shift


@dataclass(frozen=True, kw_only=True, slots=True)
class FewSteps:
    """A sampler of few steps in which a model obeys as it does in many: what `speed: few` is.

    Attributes:
        steps, solver, grid, shift: as in `Defaults`.
        guidance_interval: the noise levels at which there is guidance.
    """

    steps: int
    solver: str
    grid: str
    shift: float
    guidance_interval: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """From a model's index; `ValueError`, `TypeError` or `AttributeError` for what is none."""
        low, high = values.get("guidance_interval", (0.0, 1.0))
        return cls(**{**values, "guidance_interval": (low, high)})

    @property
    def sampler(self) -> dict[str, Any]:
        """What a shot says in the same words."""
        return {"steps": self.steps, "solver": self.solver, "grid": self.grid, "shift": self.shift}


@dataclass(frozen=True, kw_only=True, slots=True)
class Student(FewSteps):
    """Low-rank additions to a model that do in a few steps, with little or no guidance, what it does in many.

    They lie in the model's folder, as `STUDENT`, and were taught for this sampler.

    Attributes:
        guidance: what is added to the guidance that it learned; nothing where frames are held.
    """

    guidance: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """A checkpoint as its configuration describes it.

    Attributes:
        id: what the user called it.
        folder: where its files are.
        family: which loader reads it.
        stride: pixels and pixel frames per latent.
        multiple: sizes must be multiples of this many pixels (latent stride times patch).
        latent_channels: of the noise.
        mechanism: how held frames are told to the model: noise levels, extra channels, or not at all.
        modes: what it can do.
        defaults: what a shot gets where it says nothing.
        any_aspect: whether it takes other shapes than its default, so that pictures keep theirs.
        transformer: the transformer's configuration, for cost estimates.
        parts: where everything but the transformer comes from, where it stands in files of its own.
        files: those files, for each transformer; empty in diffusers layout.
        boundary: noise level in 0..1 at which a second transformer takes over; None for a single one.
        rounding: how a picture's shape becomes a size; a name in `geometry.ROUNDINGS`.
        student: what `speed: distilled` puts on the model; None where the folder has none.
        few: what `speed: few` is; None where it was not measured.
        notes: what of the checkpoint's own sampler the defaults are not.
    """

    id: str
    folder: Path
    family: Literal["embedded", "wan", "image", "foreign"]
    stride: Stride
    multiple: int
    latent_channels: int
    mechanism: Mechanism
    modes: frozenset[Mode]
    defaults: Defaults
    any_aspect: bool
    transformer: Mapping[str, Any] = field(repr=False)
    boundary: float | None = None
    parts: str = ""
    files: tuple[tuple[Path, ...], ...] = ()
    rounding: str = "diffusers"
    student: Student | None = None
    few: FewSteps | None = None
    notes: tuple[str, ...] = ()

    @property
    def borrowed(self) -> bool:
        """Whether one of diffusers' own pipelines runs it, with its own scheduler and guidance."""
        return self.family in ("image", "foreign")

    def require(self, mode: Mode) -> None:
        """Refuse a mode that this checkpoint cannot do, naming what can."""
        if mode not in self.modes:
            able = "; ".join(MODES[m] for m in MODES if m in self.modes)
            raise ModelError(
                f"model {self.id!r} cannot do {MODES[mode]}; it does: {able}. {self._instead(mode)}"
            )

    def _instead(self, mode: Mode) -> str:
        if self.family == "image":
            return "It draws pictures: add --mode frame_by_frame, or --frames 1."
        return ALTERNATIVES[mode]


ALTERNATIVES: dict[Mode, str] = {
    "text": "Use --model embedded, a Wan T2V or a Wan 2.2 TI2V checkpoint.",
    "image": "Use --model embedded or a Wan T2V checkpoint.",
    "first": "Use --model embedded, a Wan I2V or a Wan 2.2 TI2V checkpoint.",
    "last": "Use --model embedded or a Wan FLF2V checkpoint.",
    "keyframes": "Use --model embedded or a Wan 2.2 TI2V checkpoint.",
    "strength": "Use strength 1, or --model embedded.",
    "video": "Use --model embedded or a Wan T2V checkpoint.",
    "extend": "Use --model embedded or a Wan 2.2 TI2V checkpoint.",
    "frame_by_frame": "Use --model embedded, a Wan T2V checkpoint, or an image model.",
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint."""
    try:
        if path.stat().st_size > 64 << 20:
            raise ModelError(f"{path} is larger than 64 MB, which no configuration file is.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path} is missing; a model folder in diffusers layout has it. Check the path."
        ) from None
    except PermissionError as error:
        raise ModelError(
            f"{path} may not be read ({str(error.strerror).lower()}); allow it, or give another model."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{path} cannot be read as JSON ({reason}); get it again.") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} holds no JSON object; get it again.")
    return data
