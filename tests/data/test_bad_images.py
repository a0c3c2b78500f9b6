"""Whatever an image file holds: it is a square of pixels, or there is one kind of error, soon."""

import pytest
from hypothesis import HealthCheck, given, settings
from support.bad_images import bad_images, check_image

FAST = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bad")


@FAST
@given(image=bad_images())
def test_a_file_is_an_image_or_there_is_one_error(folder, image):
    check_image(folder, *image)
