"""The card of a Wan checkpoint: what its channels say it can do, and what its makers' programs use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinema.core.contracts import Stride
from kinema.core.errors import ModelError
from kinema.pipelines.card import MODES, Defaults, Mechanism, Mode, ModelCard, read_json
from kinema.pipelines.wan_sampler import Sampler, wan_sampler


def wan_card(name: str, folder: Path, index: Mapping[str, Any], transformer: Mapping[str, Any]) -> ModelCard:
    """The card of a Wan checkpoint whose transformer has this configuration."""
    vae = read_json(folder / "vae" / "config.json")
    for part, config, expected in (
        ("transformer", transformer, "WanTransformer3DModel"),
        ("vae", vae, "AutoencoderKLWan"),
    ):
        if config.get("_class_name", expected) != expected:
            raise ModelError(
                f"the {part} of model {name!r} is a {config['_class_name']!r}; "
                f"kinema runs {expected!r} there."
            )
    boundary = _boundary(name, index)
    residual = bool(vae.get("is_residual"))
    stride = Stride(time=vae.get("scale_factor_temporal", 4), space=vae.get("scale_factor_spatial", 8))
    mechanism, modes = _wan_modes(transformer, stride, bool(index.get("expand_timesteps")))
    sampler = wan_sampler(name, folder, index)
    return ModelCard(
        id=name,
        folder=folder,
        family="wan",
        stride=stride,
        multiple=stride.space * transformer.get("patch_size", [1, 2, 2])[1],
        latent_channels=vae.get("z_dim", 16),
        mechanism=mechanism,
        modes=modes,
        defaults=_wan_defaults(sampler, residual, boundary, mechanism),
        any_aspect=True,
        transformer=transformer,
        boundary=boundary,
        notes=sampler.notes,
    )


def _boundary(name: str, index: Mapping[str, Any]) -> float | None:
    """Where the second expert of a pair takes over; None for a single transformer."""
    if (index.get("transformer_2") or [None])[0] is None:
        return None
    boundary = index.get("boundary_ratio")
    if not isinstance(boundary, int | float) or isinstance(boundary, bool) or not 0 <= boundary <= 1:
        raise ModelError(
            f"model {name!r} has two experts and boundary_ratio={boundary!r} in model_index.json, "
            "which must be a noise level in 0..1 (Wan 2.2 has 0.875 or 0.9); get the folder again."
        )
    return float(boundary)


def _wan_modes(
    transformer: Mapping[str, Any], stride: Stride, per_token_time: bool
) -> tuple[Mechanism, frozenset[Mode]]:
    """How pictures are told to a Wan transformer, and what follows from it.

    Mask channels (one per frame of a group) and the picture's stand beside the noise; image tokens come
    from one picture, or, where they have learned positions, from exactly two.
    """
    seen, made = transformer.get("in_channels", 16), transformer.get("out_channels") or 16
    if seen == 2 * made + stride.time:
        if transformer.get("image_dim") is None:
            return "channels", frozenset({"first", "last"})
        return "channels", frozenset({"last"} if transformer.get("pos_embed_seq_len") else {"first"})
    if seen != made:
        raise ModelError(
            f"the transformer reads {seen} channels and makes {made}; kinema knows {made} and "
            f"{2 * made + stride.time} (with mask and picture). Use a Wan T2V, I2V, FLF2V or TI2V checkpoint."
        )
    if per_token_time:
        return "levels", frozenset(MODES)
    return "none", frozenset({"text", "image", "video", "frame_by_frame"})


def _wan_defaults(sampler: Sampler, residual: bool, boundary: float | None, mechanism: Mechanism) -> Defaults:
    """The sizes and rates that the checkpoints' own programs use; two experts have a scale each."""
    width, height, frames, fps = (1280, 704, 121, "24") if residual else (832, 480, 81, "16")
    low = None if boundary is None else 3.0 if mechanism == "none" else 3.5
    high = 5.0 if low is None else 4.0 if mechanism == "none" else 3.5
    return Defaults(
        width=width,
        height=height,
        frames=frames,
        fps=fps,
        steps=50 if boundary is None else 40,
        solver=sampler.solver,
        grid=sampler.grid,
        shift=sampler.shift,
        guidance=high,
        guidance_low=low,
    )
