"""Where and with what numbers a run happens: device, precision, threads, and named random generators.

Every seed derives from one: `generator(seed, "noise")` and `generator(seed, "frame 12")` are independent
streams, so a new consumer never shifts the others. Generators live on the CPU, so a seed means the same
numbers on every device.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from kinema.core.errors import ConfigError, unknown_name

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator whose stream depends on (seed, name) only."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def frame_noise(seed: int, shape_CYX: tuple[int, int, int], latent_frames: int, *, first: int = 0) -> Tensor:
    """Standard normal noise `[1, C, T, Y, X]` in which latent frame f depends on (seed, f) only.

    Longer clips therefore begin like shorter ones, and overlapping windows agree.

    Args:
        seed: the shot's seed.
        shape_CYX: channels, latent rows, latent columns.
        latent_frames: how many frames to draw.
        first: index of the first of them within the clip.
    """
    frames = [
        torch.randn(shape_CYX, generator=generator(seed, f"noise/frame {first + f}"))
        for f in range(latent_frames)
    ]
    return torch.stack(frames, dim=1).unsqueeze(0)


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1` or `mps` as a device that exists on this machine."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown_name("device", name, ["auto", "cpu", "cuda", "mps"]) from None
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise ConfigError(f"device={name!r} is not available on this machine; use 'auto' or 'cpu'.")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is float32 on a CPU and bfloat16 on an accelerator."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise unknown_name("dtype", name, ["auto", *DTYPES])
    return DTYPES[name]


def out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python asked for more memory than there is, on whatever device."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )
