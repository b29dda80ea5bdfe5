"""What every layer may use: errors, the torch-free nouns, and the run-time's devices and generators."""
