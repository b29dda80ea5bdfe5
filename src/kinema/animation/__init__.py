"""Cameras, warps, depth and colour: what happens to a picture between one frame and the next."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """`kinema.animation.camera` after a plain `import kinema`; loaded when it is first named."""
    if name != "camera":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("kinema.animation.camera")
