"""Models that draw from a picture's embedding, which a prior makes from words (unCLIP): Kandinsky 2.2."""
