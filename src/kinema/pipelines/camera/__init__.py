"""What a camera does to a clip: planned, drawn, told to the model."""
