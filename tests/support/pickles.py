"""Pickles that say when they are opened."""

import os

import numpy as np


class Pickled:
    """What makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def pickled_array(marker):
    """An array that np.load can only read by unpickling it."""
    return np.array([Pickled(marker)], dtype=object)
