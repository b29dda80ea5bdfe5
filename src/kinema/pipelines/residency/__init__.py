"""Where a checkpoint's weights are while it works, and which arrangement fits the machine."""
