"""The colours of the themes for all kinds of colour vision."""

from itertools import combinations

import numpy as np
import pytest
from rotnet_tui.app import RotnetApp
from rotnet_tui.themes import THEMES
from rotnet_tui.widgets.curves import COLORS
from support.screen_words import until

# Machado, Oliveira and Fernandes 2009: what is seen of linear RGB with one kind of cone missing.
SIMULATED = {
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color):
    srgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    x, y, z = np.cbrt(np.maximum(TO_XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
async def test_curves_can_be_told_apart_with_any_colour_vision(theme, runs_dir):
    app = RotnetApp(runs_dir)
    app.settings.theme = theme.name
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.theme == theme.name)
        variables = app.theme_variables
        shown = [variables[color.removeprefix("$")] for color in COLORS]
        background = TO_XYZ[1] @ linear(variables["background"])
    for color in shown:
        light, dark = sorted((TO_XYZ[1] @ linear(color), background), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, color
    for vision, matrix in SIMULATED.items():
        for one, other in combinations(shown, 2):
            seen = [lab(np.array(matrix) @ linear(color)) for color in (one, other)]
            assert np.linalg.norm(seen[0] - seen[1]) > 20, (vision, one, other)
