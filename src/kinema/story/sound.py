"""`Sound`: how a shot's audio plays under the clip.

    audio: song.mp3
    sound: {start: 12.5, loop: true, volume: 0.8, fade_out: 2}

A file plays on from shot to shot, so that it is cut where the clip ends and nowhere else. A file that is
shorter than the clip is followed by silence, or begins again with `loop`.
"""

from __future__ import annotations

from pydantic import Field

from kinema.story.settings import Settings

MAX_SECONDS = 86_400.0


class Sound(Settings):
    """How a shot's audio plays."""

    start: float = Field(
        0.0, ge=-MAX_SECONDS, le=MAX_SECONDS, title="Start",
        description="seconds into the file where it begins; negative: seconds of silence before it",
    )  # fmt: skip
    loop: bool = Field(False, title="Loop", description="begin again when the file ends, instead of silence")
    volume: float = Field(1.0, ge=0.0, le=10.0, title="Volume", description="factor; 0 is silence")
    fade_in: float = Field(
        0.0, ge=0.0, le=MAX_SECONDS, title="Fade in", description="seconds in which it comes"
    )
    fade_out: float = Field(
        0.0, ge=0.0, le=MAX_SECONDS, title="Fade out", description="seconds in which it goes"
    )
