"""Clips drawn one frame after the other, each from the one before."""
