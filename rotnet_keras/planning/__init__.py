"""Estimates of what a run will cost: timed by a short trial, or computed for other hardware."""
