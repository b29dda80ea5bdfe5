"""Configurations of animatediff-cli and its prompt-travel fork (JSON with `prompt_map`) as a shot.

There, `prompt_fixed_ratio` is the share of the way to the next key for which a prompt holds before it
travels; as ranges, that is exactly what is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from kinema.core.errors import ConfigError
from kinema.story.imported import KARRAS, Imported

USUAL_LENGTH = 16

_SOLVERS = {
    "euler": "euler", "euler_a": "euler-ancestral", "k_euler": "euler", "k_euler_a": "euler-ancestral",
    "ddim": "ddim", "heun": "heun", "k_dpmpp_2m": "dpm++2m-karras", "dpmpp_2m": "dpm++2m", "lcm": "lcm",
    "unipc": "unipc",
    "dpmpp_2m_sde": "dpm++2m-sde", "k_dpmpp_2m_sde": "dpm++2m-sde-karras",
}  # fmt: skip
_LEFT = {
    "path": "the checkpoint; write model: with a diffusers folder or hub id",
    "vae_path": "the VAE", "motion_module": "the motion module", "lora_map": "LoRAs; list them under loras",
    "motion_lora_map": "motion LoRAs", "clip_skip": "clip skip",
    "upscale_config": "upscaling by redrawn tiles; write upscale: 2, or with a network's file",
}  # fmt: skip
_SWITCHED = {
    "ip_adapter_map": "IP-Adapter", "region_map": "regions with prompts of their own",
    "lcm_map": "LCM", "gradual_latent_hires_fix_map": "gradual latent hires fix",
}  # fmt: skip


def read(config: Mapping[str, Any]) -> Imported:
    """The shot that the configuration describes.

    Raises:
        ConfigError: prompts that are no mapping of frames to texts.
    """
    found = Imported("an animatediff-cli configuration")
    texts = _texts(found, config)
    last = max(texts)
    found.values["frames"] = max(USUAL_LENGTH, last + 1)
    found.leave("length", f"frames: {found.values['frames']}, as the command line says it there (-L)")
    if name := str(config.get("name") or "").strip():
        plain = "".join(c for c in name if c not in "/\\" and c.isprintable())
        found.values["name"] = plain[:100] or "imported"
    _numbers(found, config)
    found.values["prompt"] = _prompt(found, config, texts)
    negative = config.get("n_prompt")
    if isinstance(negative, list):
        negative = negative[0] if negative else ""
    if negative:
        found.values["negative"] = found.words(str(negative), "n_prompt")
    _source(found, config)
    _left(found, config)
    return found


def _texts(found: Imported, config: Mapping[str, Any]) -> dict[int, str]:
    written = config.get("prompt_map") or dict(enumerate((config.get("prompt") or [])[:1]))
    if not isinstance(written, Mapping) or not written:
        raise ConfigError("prompt_map is not a mapping of frames to texts.")
    texts: dict[int, str] = {}
    for key, text in written.items():
        if not str(key).strip().isdecimal() or len(str(key)) > 9:
            raise ConfigError(f"prompt_map: {str(key)[:40]!r} is not a frame.")
        texts[int(key)] = found.words(str(text), f"prompt_map {key}")
    return dict(sorted(texts.items()))


def _numbers(found: Imported, config: Mapping[str, Any]) -> None:
    for theirs, ours in (("steps", "steps"), ("guidance_scale", "guidance")):
        if isinstance(config.get(theirs), int | float):
            found.values[ours] = config[theirs]
    seeds = config.get("seed")
    seed = seeds[0] if isinstance(seeds, list) and seeds else seeds
    if isinstance(seed, int) and seed >= 0:
        found.values["seed"] = seed
    if isinstance(seeds, list) and len(seeds) > 1:
        found.leave("seed", f"the first of {len(seeds)}; render once for each")
    output = config.get("output")
    if isinstance(output, Mapping) and isinstance(output.get("fps"), int | float):
        found.values["fps"] = output["fps"]
    if (theirs := str(config.get("scheduler") or "")) and (solver := _SOLVERS.get(theirs.lower())):
        found.values["solver"] = solver
        found.tell_spacing("scheduler", solver)
        if theirs.lower().startswith("k_") and not solver.endswith(KARRAS):
            found.leave("scheduler", f"{theirs}; steps are spread as the model's own scheduler does")
    elif theirs:
        found.leave("scheduler", f"there is no solver {theirs!r}; kinema models lists them")


def _prompt(found: Imported, config: Mapping[str, Any], texts: dict[int, str]) -> Any:
    ends = {
        ours: found.words(str(config[theirs]), theirs)
        for theirs, ours in (("head_prompt", "head"), ("tail_prompt", "tail"))
        if config.get(theirs)
    }
    if len(texts) == 1:
        return {**ends, 0: next(iter(texts.values()))}
    ratio = config.get("prompt_fixed_ratio", 0.5)
    ratio = float(min(max(0.0, ratio), 1.0)) if isinstance(ratio, int | float) else 0.5
    keys: dict[Any, str] = {}
    for (first, text), (after, _) in pairwise(texts.items()):
        until = min(first + int((after - first) * ratio), after - 1)
        keys[f"{first}..{until}" if until > first else first] = text
    last = max(texts)
    if ratio > 0:
        found.leave("prompt_fixed_ratio", f"prompts hold for {ratio:g} of the way, then travel, as written")
    found.leave("prompt_map", "the last prompt holds to the end; there it travels back to the first")
    return {**ends, **keys, last: texts[last]}


def _source(found: Imported, config: Mapping[str, Any]) -> None:
    source = config.get("img2img_map")
    if isinstance(source, Mapping) and source.get("enable") and source.get("init_img_dir"):
        strength = source.get("denoising_strength", 0.7)
        found.values["source"] = {"path": str(source["init_img_dir"]), "strength": strength}


def _left(found: Imported, config: Mapping[str, Any]) -> None:
    for name, what in _LEFT.items():
        if config.get(name) and not (name == "clip_skip" and config[name] == 1):
            value = config[name]
            told = ", ".join(map(str, value)) if isinstance(value, Mapping) else str(value)
            found.leave(name, f"{what} ({told[:120]})")
    for name, what in _SWITCHED.items():
        value = config.get(name)
        if isinstance(value, Mapping) and (value.get("enable") or name == "region_map"):
            found.leave(name, what)
    controls = config.get("controlnet_map")
    enabled = [
        name.removeprefix("controlnet_")
        for name, value in (controls.items() if isinstance(controls, Mapping) else ())
        if isinstance(value, Mapping) and value.get("enable")
    ]
    if enabled:
        found.leave("controlnet_map", f"ControlNet ({', '.join(enabled)})")
