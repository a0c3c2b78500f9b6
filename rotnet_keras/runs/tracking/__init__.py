"""Mirroring runs to experiment trackers, which read a run and decide nothing."""
