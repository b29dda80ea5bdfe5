"""What a process that the server starts finds in its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

SECRET = ("KINEMA_TOKEN",)
"""Of no use to workers and inspectors, which read files of strangers."""
QUIET = {
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""Libraries that would write lines of their own, with words of prompts in them; what is set already stays."""


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without secrets, and `more`."""
    ours = {name: value for name, value in os.environ.items() if name not in SECRET}
    return {**QUIET, **ours, **more}
