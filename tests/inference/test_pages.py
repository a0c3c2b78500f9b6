"""Pages of images in files with many channels."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke
from support.value_images import tiff

from rotnet_keras.inference.pages import thumbnail


def drawn(text):
    """The middle pixel of a thumbnail."""
    with Image.open(BytesIO(base64.b64decode(text))) as image:
        pixels = np.asarray(image)
    return pixels[len(pixels) // 2, len(pixels) // 2].tolist()


def test_a_page_shows_the_chosen_channels(tmp_path):
    pixels = np.zeros((8, 8, 5), np.uint8)
    pixels[..., 4] = 250
    file = tmp_path / "bands.tif"
    file.write_bytes(tiff(pixels))
    assert drawn(thumbnail(file)) == pytest.approx([0, 0, 0], abs=3)
    assert drawn(thumbnail(file, channels=[0, 4, 1])) == pytest.approx([0, 250, 0], abs=3)
    assert drawn(thumbnail(file, channels=[4])) == pytest.approx([250] * 3, abs=3)
    # An image of fewer channels is shown as it is.
    Image.new("RGB", (8, 8), (0, 0, 250)).save(tmp_path / "blue.png")
    assert drawn(thumbnail(tmp_path / "blue.png", channels=[4])) == pytest.approx([0, 0, 250], abs=5)


@pytest.mark.parametrize("channels", ["red", "1,2,3,4", "-1", "", "1,,2"])
def test_what_are_no_channels_is_refused(channels, tmp_path):
    arguments = ("select", tmp_path / "f.npz", "--count", 1, "--to", tmp_path / "s.csv", "--shown", channels)
    result = invoke(*arguments)
    assert result.returncode == 2 and "--shown: expected one to three channels, such as 3,2,1, got" in result.stderr
