import numpy as np
import pytest

from rotnet_keras.config.sections import Augment
from rotnet_keras.data.batches import (
    Replicas,
    center_crop,
    evaluation_batches,
    load_augmented,
    positions_of_step,
    training_batches,
    whole_batch_of_step,
)
from rotnet_keras.data.stores import Split
from rotnet_keras.models.rotation import rotate_batch

FLIP_AND_CROP = Augment(pad=1, flip=True)


def split_of(images):
    return Split(images, np.arange(len(images)), None)


def random_images(count=20, size=8):
    return np.random.default_rng(0).integers(1, 256, (count, size, size, 3), dtype=np.uint8)


def test_an_epoch_sees_every_image_once_and_the_next_in_another_order():
    epochs = [np.concatenate([positions_of_step(10, 4, 0, 3 * e + s) for s in range(3)]) for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert list(epochs[0]) != list(epochs[1])


def test_batches_depend_on_seed_and_step_alone():
    split = split_of(random_images())
    options = {"batch": 4, "seed": 5}
    whole = list(training_batches(split, FLIP_AND_CROP, first=0, last=12, **options))
    resumed = list(training_batches(split, FLIP_AND_CROP, first=7, last=12, **options))
    for ours, theirs in zip(resumed, whole[7:], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other = next(iter(training_batches(split, FLIP_AND_CROP, batch=4, seed=6, first=7, last=12)))
    assert not np.array_equal(other, whole[7])


def test_the_last_batch_of_an_epoch_is_kept_small():
    sizes = [len(b) for b in training_batches(split_of(random_images(10)), Augment(), batch=4, seed=0, first=0, last=4)]
    assert sizes == [4, 4, 2, 4]


@pytest.mark.parametrize("augment", [FLIP_AND_CROP, Augment(area=[0.3, 1.0], crop=8, flip=True)])
def test_replicas_get_every_image_of_the_batch_once(augment):
    split = Split(random_images(9), np.arange(9), np.arange(9))
    options = {"batch": 4, "seed": 5, "first": 1, "last": 3, "labelled": True}
    steps = list(training_batches(split, augment, **options))
    processes = [Replicas(here, 4) for here in (range(2), range(2, 4))]
    parts = [list(training_batches(split, augment, replicas=replicas, **options)) for replicas in processes]
    # A step of four images, and one with a single image: three replicas get one that counts nothing.
    for step, (images, labels) in enumerate(steps):
        shares = [part for process in parts for part in process[2 * step : 2 * step + 2]]
        for number, image in enumerate(images):
            np.testing.assert_array_equal(shares[number][0][0], image)
            assert shares[number][1][0] == labels[number]
        assert [share[2].numpy().tolist() for share in shares] == [[[1.0]] * 4, [[4.0], [0.0], [0.0], [0.0]]][step]


def test_training_images_are_upright_so_that_no_flip_follows_the_rotation():
    # Whatever the pipeline makes of the image must be the image or its mirror image, never a rotation of it,
    # and the copy labelled k must be that, rotated k times.
    image = random_images(1)
    upright = {image[0].tobytes(), image[0][:, ::-1].tobytes()}
    seen = set()
    for batch in training_batches(split_of(image), Augment(flip=True), batch=1, seed=0, first=0, last=30):
        inputs, labels = rotate_batch(batch)
        for rotated, label in zip(np.asarray(inputs), np.asarray(labels), strict=True):
            back = np.rot90(rotated, -int(label))
            assert back.tobytes() in upright
            seen.add((back.tobytes(), int(label)))
    assert len(seen) == 8


def test_crops_are_windows_of_the_zero_padded_image():
    image = random_images(1)
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)))
    windows = {padded[y : y + 8, x : x + 8].tobytes(): (y, x) for y in range(3) for x in range(3)}
    crops = load_augmented(split_of(image), np.zeros(200, int), Augment(pad=1), np.random.default_rng(0))
    assert {windows[crop.tobytes()] for crop in crops} == {(y, x) for y in range(3) for x in range(3)}


def test_evaluation_takes_the_centre_and_keeps_the_order():
    images = random_images(size=12)
    batches = list(evaluation_batches(split_of(images), Augment(crop=8, flip=True), batch=7))
    assert [len(b) for b in batches] == [7, 7, 6]
    np.testing.assert_array_equal(np.concatenate(batches), images[:, 2:10, 2:10])


@pytest.mark.parametrize("crop", [8, 10])
def test_a_crop_larger_than_the_image_is_padded(crop):
    assert center_crop(random_images(), Augment(pad=1, crop=crop)).shape == (20, crop, crop, 3)


@pytest.mark.parametrize(("count", "batch"), [(200, 128), (20, 128), (128, 128)])
def test_whole_batches_go_on_into_the_next_pass(count, batch):
    steps = [whole_batch_of_step(count, batch, 7, step) for step in range(25)]
    positions, passes = (np.concatenate(arrays) for arrays in zip(*steps, strict=True))
    assert {len(of_step) for of_step, _ in steps} == {batch} and len(positions) == 25 * batch
    for number in range(25 * batch // count):
        assert sorted(positions[passes == number]) == list(range(count))
    assert (passes == np.arange(25 * batch) // count).all()
    np.testing.assert_array_equal(positions[:count], positions_of_step(count, count, 7, 0))
