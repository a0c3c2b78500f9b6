import numpy as np
import pytest

from rotnet_keras.engine import tf
from rotnet_keras.models.rotation import rotate_batch, rotate_one_each, rotated_size

EIGHT = (0, 45, 90, 135, 180, 225, 270, 315)


def some_images(size=8, channels=3):
    return np.random.default_rng(0).integers(0, 256, (5, size, size, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_right_angles_are_numpys_rot90_counter_clockwise(channels):
    images = some_images(channels=channels)
    inputs, labels = rotate_batch(images)
    expected = np.concatenate([np.rot90(images, k, axes=(1, 2)) for k in range(4)])
    np.testing.assert_array_equal(inputs, expected)
    np.testing.assert_array_equal(labels, np.repeat(np.arange(4), 5))
    assert inputs.dtype == tf.uint8


def test_labels_are_indices_in_the_list_of_angles():
    images = some_images()
    inputs, labels = rotate_batch(images, (270, 90))
    np.testing.assert_array_equal(inputs[:5], np.rot90(images, 3, axes=(1, 2)))
    np.testing.assert_array_equal(inputs[5:], np.rot90(images, 1, axes=(1, 2)))
    np.testing.assert_array_equal(labels, [0] * 5 + [1] * 5)


def test_rotation_is_the_same_in_a_tf_data_pipeline_and_under_xla():
    images = some_images()
    plain = rotate_batch(images)[0]
    mapped = next(iter(tf.data.Dataset.from_tensors(images).map(lambda x: rotate_batch(x)[0])))
    compiled = tf.function(lambda x: rotate_batch(x)[0], jit_compile=True)(images)
    np.testing.assert_array_equal(mapped, plain)
    np.testing.assert_array_equal(compiled, plain)


@pytest.mark.parametrize(("size", "expected"), [(32, 22), (224, 158)])
def test_oblique_angles_leave_the_inscribed_square(size, expected):
    assert rotated_size(size, EIGHT) == expected
    assert rotate_batch(some_images(size), EIGHT)[0].shape == (40, expected, expected, 3)


def test_no_oblique_copy_shows_an_empty_corner():
    white = np.full((1, 32, 32, 1), 255, np.uint8)
    inputs, _ = rotate_batch(white, EIGHT)
    assert np.asarray(inputs).min() == 255


def test_all_eight_copies_have_the_same_field_of_view():
    # Rings around the centre look the same from every angle, unless one copy sees more of them.
    y, x = np.mgrid[:32, :32] - 15.5
    rings = 127.5 + 127.5 * np.cos(np.hypot(x, y) / 4)
    copies = np.asarray(rotate_batch(rings[None, :, :, None].astype(np.float32), EIGHT)[0])
    np.testing.assert_allclose(copies, np.broadcast_to(copies[:1], copies.shape), atol=3)


def test_45_degrees_rotates_counter_clockwise():
    x = np.mgrid[:32, :32][1]
    brighter_to_the_right = (8.0 * x)[None, :, :, None].astype(np.float32)
    turned = np.asarray(rotate_batch(brighter_to_the_right, (0, 45))[0])[1, :, :, 0]
    # Counter-clockwise by 45 degrees, the bright side is at the top right.
    assert turned[0, -1] > turned[0, 0] + 50
    assert turned[0, -1] > turned[-1, -1] + 50
    np.testing.assert_allclose(turned[0, 0], turned[-1, -1], atol=1e-2)


def test_right_angles_among_oblique_ones_are_rotations_of_the_same_crop():
    inputs = np.asarray(rotate_batch(some_images(32), EIGHT)[0]).reshape(8, 5, 22, 22, 3)
    for k in range(4):
        np.testing.assert_array_equal(inputs[2 * k], np.rot90(inputs[0], k, axes=(1, 2)))
        np.testing.assert_array_equal(inputs[2 * k + 1], np.rot90(inputs[1], k, axes=(1, 2)))


def test_rotate_one_each_rotates_as_its_labels_say_and_repeats_with_the_seed():
    images = np.repeat(some_images(), 20, axis=0)
    inputs, labels = rotate_one_each(images, (7, 1))
    for image, turned, label in zip(images, np.asarray(inputs), np.asarray(labels), strict=True):
        np.testing.assert_array_equal(turned, np.rot90(image, label))
    assert set(np.asarray(labels)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(labels, rotate_one_each(images, (7, 1))[1])
    assert (np.asarray(labels) != np.asarray(rotate_one_each(images, (7, 2))[1])).any()


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square"):
        rotate_batch(np.zeros((1, 8, 9, 3), np.uint8))


def test_angles_that_are_not_multiples_of_45_are_refused():
    with pytest.raises(ValueError, match="multiples of 45"):
        rotate_batch(some_images(), (0, 30))
