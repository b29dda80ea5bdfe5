"""Measuring what a model does: metrics and the judges of the embedded model's clips."""
