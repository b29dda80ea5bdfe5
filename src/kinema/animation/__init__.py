"""Cameras, warps, depth and colour: what happens to a picture between one frame and the next."""
