"""What the keys of LoRA files say: whose change it is, of which layer, and which part of that.

    text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.lora_up.weight
    the first text encoder's         text_model.encoder.layers.0.mlp.fc1 up

Prefixes stand before one another as the programs that wrote a file put them there (SimpleTuner's
`transformer.base_model.model.`), and are taken off until none is left.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

Part = Literal["down", "up", "bias", "alpha", "diff", "diff_b"]
Expert = Literal["high", "low"]
Text = Literal["text", "text_2"]
Owner = Literal["high", "low", "text", "text_2"]
Whose = Literal["high", "low", "text", "text_2", "another"]
"""An owner, or a text encoder that no LoRA of the model changes."""

PEFT_PREFIX = "base_model.model."
PREFIXES = (
    PEFT_PREFIX,
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "model.",
    "pipe.dit.",  # DiffSynth-Studio
)
FLAT_PREFIXES = (
    "lora_unet__",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
)  # VideoX-Fun's has two _
LOW_PREFIX = "transformer_2."
TEXT_PREFIXES = ("text_encoder", "lora_te", "te.", "conditioner.")
TEXTS: Mapping[Text, tuple[str, ...]] = {
    "text": (
        "text_encoder.",
        "text_encoders.clip_l.transformer.",
        "text_encoders.clip_h.transformer.",
        "lora_te_",
        "lora_te1_",
        "te.",
    ),
    "text_2": ("text_encoder_2.", "text_encoders.clip_g.transformer.", "lora_te2_"),
}
"""How keys of a model's text encoders begin: in diffusers, ComfyUI and kohya."""
OTHER_KINDS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "boft_": "BOFT",
    "lora_mid": "LoCon with a core tensor",
    "bundle_emb.": "LoRA bundled with embeddings of words (textual inversion)",
}
_LOW_RANK = re.compile(
    r"(?P<stem>.+?)\.(?P<part>lora_A|lora_B|lora_down|lora_up|(?:lora|lora_linear_layer)\.(?:down|up))"
    r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.(?P<leaf>weight|bias))?"
)
_PROCESSOR = re.compile(r"(?:\.processor)?\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight$")
_OTHER = re.compile(r"(?P<stem>.+)\.(?P<part>alpha|lora_alpha|diff|diff_b|diff_m|w_norm|b_norm)")
_NORM_SCALE = re.compile(r"(?<=_norm)[._]scale$")  # what Flux's makers call its weight
_ORIGINAL = re.compile(
    r"self_attn|cross_attn|\.ffn\.0|(input|output|double|single|joint)_blocks\.|middle_block\."
)
_PARTS: dict[str, Part] = {
    "alpha": "alpha",
    "lora_alpha": "alpha",
    "diff": "diff",
    "diff_b": "diff_b",
    "w_norm": "diff",  # LyCORIS, of norms
    "b_norm": "diff_b",
}


def other_kind(key: str) -> str | None:
    """What a file with such a key is, if it is no LoRA alone."""
    return next((kind for mark, kind in OTHER_KINDS.items() if mark in key), None)


def placed(key: str, texts: Collection[Text]) -> tuple[Whose | None, str, Part] | None:
    """Owner, layer and part of a key; None for a key that is no part of a LoRA.

    Args:
        key: of the file.
        texts: the text encoders that LoRAs of the model change.
    """
    whose: Whose | None = None
    if key.startswith(TEXT_PREFIXES):
        text = next((text for text in texts if key.startswith(TEXTS[text])), None)
        whose = text or "another"
        key = key if text is None else _without_first(key, TEXTS[text])
    key = _PROCESSOR.sub(_as_usual, key)
    key, prefixes = without_prefixes(key)
    whose = "low" if LOW_PREFIX in prefixes and whose is None else whose
    found = _LOW_RANK.fullmatch(key)
    if found is not None:
        down = found["part"].endswith(("lora_A", "down"))
        part: Part = "bias" if found["leaf"] == "bias" else "down" if down else "up"
        return None if part == "bias" and down else (whose, found["stem"], part)
    other = _OTHER.fullmatch(key)
    if other is None:
        return None
    if other["part"] == "diff_m":  # of the table that the original names call modulation
        return whose, f"{other['stem']}.modulation", "diff"
    return whose, _NORM_SCALE.sub("", other["stem"]), _PARTS[other["part"]]


def without_prefixes(key: str) -> tuple[str, list[str]]:
    """A name without what programs put in front of a layer's, and what that was."""
    prefixes = []
    while prefix := next((p for p in (*FLAT_PREFIXES, *PREFIXES, LOW_PREFIX) if key.startswith(p)), None):
        prefixes.append(prefix)
        key = key.removeprefix(prefix)
    return key, prefixes


def _without_first(key: str, prefixes: tuple[str, ...]) -> str:
    return next(key.removeprefix(prefix) for prefix in prefixes if key.startswith(prefix))


def _as_usual(found: re.Match[str]) -> str:
    """`.processor.to_out_lora.down.weight`, as diffusers once wrote it, in the way of today."""
    layer = "to_out.0" if found[1] == "to_out" else found[1]
    return f".{layer}.lora_{found[2]}.weight"


def layout_of(keys: Collection[str]) -> Literal["diffusers", "original", "kohya"]:
    """What the names look like."""
    if any(key.startswith((*FLAT_PREFIXES, "lora_te")) for key in keys):
        return "kohya"
    said = any(_ORIGINAL.search(key) for key in keys if not key.startswith(TEXT_PREFIXES))
    return "original" if said else "diffusers"
