"""Names in figures are shown as they are, however they are spelled."""

import numpy as np
from PIL import Image

from rotnet_keras.reports.figures import MAX_NAME, draw_confusion

NAMES = ["$", "$\\frac{$", "$\\frac{", "a\nb\x1b[2J", "x" * 10_000, "_^{}\\"]


def test_a_name_is_neither_a_formula_nor_as_wide_as_it_is_long(tmp_path):
    draw_confusion(np.eye(len(NAMES), dtype=int).tolist(), NAMES, "$\\bad{$", tmp_path / "confusion.png", tmp_path)
    with Image.open(tmp_path / "confusion.png") as image:
        assert max(image.size) < 40 * MAX_NAME
