"""The nouns that several layers share, free of torch: what a file remembers, what a run reports, strides.

Axis letters, package-wide: B batch, C channels, T latent frames, Y and X latent rows and columns, F pixel
frames, H W pixels, N tokens, L text tokens, D width, K prompts. Tensor names may carry them: `x_BCTYX`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

RECORD_SCHEMA = 1

Phase = Literal[
    "fetch", "load", "text", "encode", "denoise", "draw", "decode", "interpolate", "upscale", "write"
]


@dataclass(frozen=True, slots=True)
class Progress:
    """One event of a long run.

    Attributes:
        phase: what is being done.
        step: how many steps of this phase are finished, 0 to `steps`.
        steps: how many there are.
        sigma: the noise level in 0..1 after this step, while denoising.
        clean: the current guess of the clean latents `[B, C, T, Y, X]`, while denoising; for previews.
        shot: which shot of a storyboard, from 1.
        shots: how many there are.
        note: one line for the user, where something unforeseen was dealt with.
    """

    phase: Phase
    step: int
    steps: int
    sigma: float | None = None
    clean: Any = field(default=None, compare=False, repr=False)
    shot: int = 1
    shots: int = 1
    note: str | None = None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Record:
    """What a file remembers of its making; enough to make it again.

    Attributes:
        shot: the resolved shot (seed drawn, defaults filled), JSON values only.
        model: identity of the weights: `id`, `revision`, `files` (name -> sha256).
        versions: kinema, torch and python versions, and the schema of this record.
        post: what was done to a finished clip afterwards; `shot` is empty when kinema did not make the clip.
        run: what happened on the way.
    """

    shot: Mapping[str, Any]
    model: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    post: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One compact line of JSON."""
        data = {"kinema": RECORD_SCHEMA, **asdict(self)}
        for name in ("post", "run"):
            if not data[name]:
                del data[name]
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Record:
        """Read what `to_json` wrote; `ValueError` when it is not a kinema record."""
        data = json.loads(text)
        if not isinstance(data, dict) or "kinema" not in data or not isinstance(data.get("shot"), dict):
            raise ValueError("not a kinema record")
        parts = (data.get(name) for name in ("model", "versions", "post", "run"))
        return Record(data["shot"], *(part if isinstance(part, dict) else {} for part in parts))


@dataclass(frozen=True, slots=True)
class Stride:
    """How many pixels, and pixel frames, one latent covers.

    A causal video VAE codes the first frame alone and then groups of `time` frames:
    `T = 1 + (F - 1) / time`.
    """

    time: int
    space: int

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a clip of `frames` pixel frames (1 + a multiple of `time`)."""
        return 1 + (frames - 1) // self.time

    def pixel_frames(self, latent_frames: int) -> int:
        """Pixel frames of a clip of `latent_frames` latent frames."""
        return 1 + (latent_frames - 1) * self.time

    def group_of(self, frame: int) -> int:
        """The latent frame that pixel frame `frame` lands in."""
        return 0 if frame == 0 else 1 + (frame - 1) // self.time


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionGuidance:
    """How far attention is led away from a negative prompt: `models.nag`.

    Attributes:
        scale: s; 1 is off.
        tau: how many times as long as before what a token reads may become.
        alpha: share of the result, 0..1.
    """

    scale: float
    tau: float
    alpha: float
