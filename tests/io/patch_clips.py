"""Frames that the io tests draw: flat saturated patches with a square that moves."""

import numpy as np

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))
PATCH = 32


def patches(count, width=192, height=64, channels=3):
    """`count` frames; COLOURS side by side, and in the top eight rows a white square at x = 8 * index."""
    for index in range(count):
        frame = np.full((height, width, channels), 255, np.uint8)
        for k, colour in enumerate(COLOURS):
            frame[:, k * PATCH : (k + 1) * PATCH, :3] = colour
        frame[:8, :, :3] = 0
        frame[:8, 8 * index : 8 * index + 8, :3] = 255
        yield frame


def patch_error(frame):
    """Largest deviation, of 255, over the middle of every patch."""
    rows = frame[32:56].astype(int)
    return max(
        abs(rows[:, k * PATCH + 12 : k * PATCH + 20, :3] - colour).max() for k, colour in enumerate(COLOURS)
    )


def position(frame):
    """The index of the frame, read off the white square."""
    return int(np.argmax(frame[2:6, 4::8, :3].astype(int).sum(axis=(0, 2))))


def names(folder):
    """What a folder holds."""
    return sorted(entry.name for entry in folder.iterdir())
