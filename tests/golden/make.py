"""Write the golden frames of the embedded model anew, when its weights or its maths change on purpose.

    python tests/golden/make.py

`embedded.json` has the shots, a sha256 of the frames of each, which weights and which machine made them;
`embedded-N.png` has the frames themselves, side by side, for machines whose last bits differ.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: how sums are split over threads changes their last bits

import numpy as np
import torch
from einops import rearrange
from PIL import Image

import kinema
from kinema.pipelines.card import EMBEDDED_FOLDER
from kinema.pipelines.hashes import cached_hashes

HERE = Path(__file__).parent
INDEX = HERE / "embedded.json"
SHOTS: tuple[dict[str, Any], ...] = (
    {"prompt": "a rooster on a blue background", "frames": 9, "steps": 4, "seed": 1},
    {
        "prompt": {0: "a fox", 8: "a penguin"},
        "frames": 9,
        "steps": 4,
        "seed": 2,
        "solver": "euler",
        "guidance": 2,
    },
    {"prompt": "a snowman", "frames": 1, "steps": 6, "seed": 3},
)


def frames(shot: dict[str, Any]) -> np.ndarray:
    """uint8 `[F, H, W, 3]` of a shot on one thread of the CPU."""
    torch.set_num_threads(1)
    return kinema.render(kinema.Shot.from_mapping({**shot, "device": "cpu"})).array()


def digest(frames_FHWC: np.ndarray) -> str:
    """sha256 over shape and pixels."""
    shape = "x".join(map(str, frames_FHWC.shape))
    return hashlib.sha256(shape.encode() + frames_FHWC.tobytes()).hexdigest()


def machine() -> dict[str, str]:
    """What may change the last bits of a sum: processor, its vector instructions, and torch."""
    info = Path("/proc/cpuinfo")
    found = dict(re.findall(r"^(.*?)\s*: (.*)$", info.read_text(), re.MULTILINE)) if info.is_file() else {}
    known = [found[key] for key in ("model name", "cpu family", "model", "stepping") if key in found]
    return {
        "processor": " / ".join(known) or platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def weights() -> dict[str, str]:
    """sha256 of the embedded model's weights by name."""
    return {
        name: value for name, value in cached_hashes(EMBEDDED_FOLDER).items() if name.endswith(".safetensors")
    }


def strip(index: int) -> Path:
    """The picture with the frames of a shot."""
    return HERE / f"embedded-{index}.png"


def read(index: int, count: int) -> np.ndarray:
    """The golden frames of a shot, `[F, H, W, 3]`."""
    row_HWC = np.asarray(Image.open(strip(index)))
    return rearrange(row_HWC, "H (F W) C -> F H W C", F=count)


def main() -> None:
    """Render every shot and write what it gives."""
    entries = []
    for index, shot in enumerate(SHOTS):
        frames_FHWC = frames(shot)
        Image.fromarray(rearrange(frames_FHWC, "F H W C -> H (F W) C")).save(strip(index), optimize=True)
        entries.append({"shot": shot, "frames": len(frames_FHWC), "sha256": digest(frames_FHWC)})
    index = {"weights": weights(), "made on": machine(), "shots": entries}
    INDEX.write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(entries)} shots, {sum(strip(i).stat().st_size for i in range(len(entries))) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
