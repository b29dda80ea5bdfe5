"""LoRA files for the image models of `checkpoints`, in every layout that users have."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from kinema.models.lora import shapes_of
from kinema.models.lora_names_images import IMAGE_NAMINGS

UNET = (
    "conv_in",
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.0.resnets.0.time_emb_proj",
    "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.attentions.0.proj_in",  # a convolution in Stable Diffusion 1, a matrix in SDXL
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
    "up_blocks.0.upsamplers.0.conv",
)
BLOCK, SINGLE = "transformer_blocks.0", "single_transformer_blocks.0"
QUERIES = tuple(f"{BLOCK}.attn.to_{x}" for x in "qkv")
CLIP = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.0.mlp.fc1")
PARTS = {
    "sd": {"unet": UNET, "text_encoder": CLIP},
    "sdxl": {"unet": (*UNET, "add_embedding.linear_1"), "text_encoder": CLIP, "text_encoder_2": CLIP},
    "sd3": {
        "transformer": (*QUERIES, f"{BLOCK}.norm1_context.linear", f"{BLOCK}.ff.net.2", "norm_out.linear"),
        "text_encoder": CLIP,
        "text_encoder_2": CLIP,
    },
    "flux": {
        "transformer": (
            *QUERIES,
            f"{BLOCK}.attn.to_add_out",
            *(f"{SINGLE}.attn.to_{x}" for x in "qkv"),
            f"{SINGLE}.proj_mlp",
            "norm_out.linear",
        ),
        "text_encoder": CLIP,
    },
}
FLAT = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
ORIGINAL = {
    "text_encoder": "text_encoders.clip_l.transformer.",
    "text_encoder_2": "text_encoders.clip_g.transformer.",
}
NAMING = {"sd": "unet", "sdxl": "unet", "sd3": "sd3", "flux": "flux"}


def changes_of(model, kind, seed=0, only=None, rank=2):
    """Low-rank halves by part and layer, large enough to be seen."""
    g, found = torch.Generator().manual_seed(seed), {}
    for part, layers in PARTS[kind].items():
        names = shapes_of(getattr(model.pipe, part))
        for layer in layers if only in (None, part) else ():
            full = f"text_model.{layer}" if f"text_model.{layer}.weight" in names else layer
            out, *rest = names[f"{full}.weight"]
            down = torch.randn(rank, *rest, generator=g)
            up = torch.randn(out, rank, *[1] * (len(rest) - 1), generator=g)
            found[part, full] = (down / down[0].numel() ** 0.5, up)
    return found


def named(model, kind, part, layer, layout):
    """What a file of a layout calls a layer, its row among those of that name, and whether it is turned."""
    if part.startswith("text"):
        inside = f"text_model.{layer.removeprefix('text_model.')}"
        if layout == "diffusers":
            return f"{part}.{inside}", 0, False
        if layout == "comfyui":
            return ORIGINAL[part] + inside, 0, False
        return FLAT[part] + inside.replace(".", "_"), 0, False
    if layout == "diffusers":
        return f"{part}.{layer}", 0, False
    if layout == "kohya":
        return "lora_unet_" + layer.replace(".", "_"), 0, False
    found = IMAGE_NAMINGS[NAMING[kind]](shapes_of(getattr(model.pipe, part)))(layer)
    if layout == "comfyui":
        return f"diffusion_model.{found.name}", found.row, found.turned
    return "lora_unet_" + found.name.replace(".", "_"), found.row, found.turned


def save_lora(path, model, kind, changes, layout):
    """A file of a layout; kohya's say alpha, half the rank, which diffusers' fold into `up`."""
    merged = {}
    for (part, layer), (down, up) in changes.items():
        name, row, turned = named(model, kind, part, layer, layout)
        merged.setdefault(name, []).append((row, down, torch.cat(up.chunk(2)[::-1]) if turned else up))
    tensors = {}
    for name, rows in merged.items():
        rows = [(down, up) for _, down, up in sorted(rows, key=lambda r: r[0])]
        down, up = rows[0] if len(rows) == 1 else (
            torch.cat([down for down, _ in rows]), torch.block_diag(*(up for _, up in rows))
        )  # fmt: skip
        if layout == "diffusers":
            tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": 0.5 * up}
        else:
            tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            tensors |= {f"{name}.alpha": torch.tensor(len(down) / 2)}
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path
