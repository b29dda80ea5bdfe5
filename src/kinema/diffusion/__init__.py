"""The maths of diffusion, written once: path, grids, solvers, guidance and the denoise loop."""
