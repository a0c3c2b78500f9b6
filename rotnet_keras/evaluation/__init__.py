"""Frozen features, heads trained on them, and metrics."""
