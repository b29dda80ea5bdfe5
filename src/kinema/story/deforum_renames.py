"""Settings of older Deforum versions under today's names and values, as the extension itself reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REMOVED = ("histogram_matching",)
"""What Deforum reads past."""

_NAMES = {
    "flip_2d_perspective": "enable_perspective_flip",
    "skip_video_for_run_all": "skip_video_creation",
}
_FLOW = ((False, "None"), (True, "DIS Fine"))
_RESIZE = (
    ("Envelope (Outer Fit)", "Outer Fit (Shrink to Fit)"),
    ("Scale to Fit (Inner Fit)", "Inner Fit (Scale to Fit)"),
)
_VALUES: Mapping[str, tuple[tuple[object, str], ...]] = {
    "color_coherence": tuple((f"Match Frame 0 {space}", space) for space in ("HSV", "LAB", "RGB")),
    "hybrid_composite": ((False, "None"), (True, "Normal")),
    "optical_flow_redo_generation": _FLOW,
    "optical_flow_cadence": _FLOW,
    "cn_1_resize_mode": _RESIZE,
    "cn_2_resize_mode": _RESIZE,
    "cn_3_resize_mode": _RESIZE,
    "add_soundtrack": ((False, "None"), (True, "File")),
}
_DEPTH = {"True": "Zoe+AdaBins (old)", "False": "Midas+AdaBins (old)"}
_CONTROL = re.compile(r"cn_[1-5]_(weight|guidance_start|guidance_end)")


def current(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which no setting has an old name or an old value; an old name goes before its new one.

    Numbers of ControlNet that are schedules today become schedules. What is in `REMOVED` stays as it is.
    """
    found = dict(settings)
    for old, new in _NAMES.items():
        if old in found:
            found[new] = found.pop(old)
    for name, values in _VALUES.items():
        if name in found:
            found[name] = next((new for old, new in values if found[name] == old), found[name])
    if (depth := _DEPTH.get(str(found.pop("use_zoe_depth", None)))) is not None:
        found["depth_algorithm"] = depth
    for name, value in found.items():
        if isinstance(value, int | float) and _CONTROL.fullmatch(name):
            found[name] = f"0:({value})"
    return found
