"""kinema: prompts, stills, keyframes and camera moves in; video files out."""

__version__ = "0.1.0"
