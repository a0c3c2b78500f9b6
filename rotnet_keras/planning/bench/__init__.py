"""Benchmarks of this machine, one module for each part of `rotnet-keras bench`."""
