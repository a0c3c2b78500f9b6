"""Object detectors on a backbone."""
