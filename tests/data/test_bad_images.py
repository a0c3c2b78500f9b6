"""Whatever an image file holds: it is a square of pixels, or there is one kind of error, soon."""

import time

import pytest
from bad_images import bad_images
from hypothesis import HealthCheck, given, settings
from test_bad_recipes import SOON

from rotnet_keras.images import UnreadableImage, look_at, read_image, read_whole

FAST = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def check_image(folder, suffix, content):
    """Read a file in all ways; whether it is an image."""
    path = folder / f"image.{suffix}"
    path.write_bytes(content)
    start = time.monotonic()
    try:
        seen = look_at(path)
        assert seen.width > 0 and seen.height > 0
        for channels in (1, 3):
            pixels = read_image(path, 8, channels)
            assert pixels.shape == (8, 8, channels) and pixels.dtype == "uint8"
            whole = read_whole(path, channels)
            assert whole.shape == (seen.height, seen.width, channels) and whole.dtype == "uint8"
        return True
    except UnreadableImage as error:
        assert str(error).strip()
        return False
    finally:
        assert time.monotonic() - start < SOON, "slow"
        path.unlink()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bad")


@FAST
@given(image=bad_images())
def test_a_file_is_an_image_or_there_is_one_error(folder, image):
    check_image(folder, *image)
