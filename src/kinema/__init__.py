"""kinema: prompts, stills and keyframes in; video files out.

    import kinema
    kinema.generate("a rooster on a blue background", seed=1).save("rooster.mp4")

Names are loaded when they are first used, so that `import kinema` is free.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kinema.core.imports import importing
from kinema.core.version import VERSION

__version__ = VERSION

_HOMES = {
    "generate": "kinema.pipelines.run",
    "render": "kinema.pipelines.run",
    "load": "kinema.pipelines.loading",
    "preview": "kinema.pipelines.durable.preview",
    "KinemaPipeline": "kinema.pipelines.diffusers_style",
    "Shot": "kinema.story.shot",
    "Keyframe": "kinema.story.shot",
    "Storyboard": "kinema.story.storyboard",
    "Schedule": "kinema.story.tracks",
    "PromptTrack": "kinema.story.prompt_track",
    "Clip": "kinema.io.clip",
    "Progress": "kinema.core.contracts",
    "Record": "kinema.core.contracts",
    "KinemaError": "kinema.core.errors",
}

__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from kinema.core.contracts import Progress, Record
    from kinema.core.errors import KinemaError
    from kinema.io.clip import Clip
    from kinema.pipelines.diffusers_style import KinemaPipeline
    from kinema.pipelines.durable.preview import preview
    from kinema.pipelines.loading import load
    from kinema.pipelines.run import generate, render
    from kinema.story.prompt_track import PromptTrack
    from kinema.story.shot import Keyframe, Shot
    from kinema.story.storyboard import Storyboard
    from kinema.story.tracks import Schedule


def __getattr__(name: str) -> Any:
    if name == "animation":  # kinema.animation.camera.matrix_2d
        return import_module("kinema.animation")
    if name not in _HOMES:
        raise AttributeError(f"module 'kinema' has no attribute {name!r}")
    with importing():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
