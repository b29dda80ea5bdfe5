"""Networks as plain torch modules, their text and image encoders, and the reading of their weights."""
