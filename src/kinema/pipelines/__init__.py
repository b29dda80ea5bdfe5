"""From a shot to frames: plan, conditioning, render."""
