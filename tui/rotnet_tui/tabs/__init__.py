"""The tabs of the run screen."""
