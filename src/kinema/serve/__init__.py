"""Kinema Studio: a durable queue, the workers that empty it, and what clients and people speak to."""
