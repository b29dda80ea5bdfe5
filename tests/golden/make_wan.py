"""Latents of Wan's own program on a small transformer, written to `wan.json`.

    python tests/golden/make_wan.py --wan PATH_OF_A_CHECKOUT_OF_Wan-Video/Wan2.1

Made at commit 9737cba. Its attention needs a GPU; here it is torch's, in float32. Weights and texts are
formulas (`wan_formulas.py`), so that the test has them without a file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from wan_formulas import LATENTS, MODEL, RUNS, fill, texts


def attention(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
    """Theirs, for the lengths that occur here: one clip, no padding, 512 text rows that all count."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


def module(root: Path, name: str) -> types.ModuleType:
    """One of their files, without importing the package around it."""
    spec = importlib.util.spec_from_file_location(name, root / f"{name.replace('.', '/')}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


def run(root: Path, run: dict[str, Any]) -> list[float]:
    """`WanT2V.generate` from its noise to its clean latents."""
    for package in ("wan", "wan.modules", "wan.utils"):
        sys.modules.setdefault(package, types.ModuleType(package)).__path__ = []
    flash = types.ModuleType("wan.modules.attention")
    flash.flash_attention = attention
    sys.modules["wan.modules.attention"] = flash
    model = module(root, "wan.modules.model").WanModel(model_type="t2v", text_len=512, **MODEL).eval()
    model.load_state_dict(fill({name: tensor.shape for name, tensor in model.state_dict().items()}))
    scheduler = module(root, "wan.utils.fm_solvers_unipc").FlowUniPCMultistepScheduler(
        num_train_timesteps=1000, shift=1, use_dynamic_shifting=False
    )
    scheduler.set_timesteps(run["steps"], device="cpu", shift=run["shift"])
    noise = torch.randn(*LATENTS, dtype=torch.float32, generator=torch.Generator().manual_seed(run["seed"]))
    tokens = LATENTS[1] * LATENTS[2] * LATENTS[3] // 4
    latents = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            given = {"t": torch.stack([t]), "seq_len": tokens}
            c, u = (model([latents], context=[text], **given)[0] for text in texts())
            v = u + run["guidance"] * (c - u)
            latents = scheduler.step(v[None], t, latents[None], return_dict=False)[0][0]
    return [round(float(value), 7) for value in latents.flatten()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wan", type=Path, required=True)
    root = parser.parse_args().wan
    found = [{**one, "latents": run(root, one)} for one in RUNS]
    Path(__file__).with_name("wan.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
