"""Training of the codec and of the transformer, on data that a person can make again."""
