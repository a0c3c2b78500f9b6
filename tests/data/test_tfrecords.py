"""Data sets of TensorFlow Datasets whose images are read from their record files."""

import shutil
from io import BytesIO

import numpy as np
import pytest
from support.photos import photo, saved
from support.tfds_folder import encoded, prepare
from support.tiny import shared_data

from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.batches import load_augmented
from rotnet_keras.data.crops import fit_of
from rotnet_keras.data.datasets import load
from rotnet_keras.data.decoding import read_image
from rotnet_keras.data.stores import DiskStore
from rotnet_keras.data.tfrecords import RecordImages, masked_crc32c
from rotnet_keras.errors import DataError


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A tfds data set of 16 images of three sizes, in two shards, one PNG among them: its folder."""
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    return prepare(tmp_path / "tfds", [9, 7])


def spec(folder, **options):
    return Data(**{"name": "pictures", "data_dir": str(folder), "size": 16, "validation": 0, "cache": "none"} | options)


def brightness(images):
    return [round((image.mean() - 20) / 10) for image in images.astype(float)]


def test_records_are_read_where_they_lie_in_any_order(prepared, monkeypatch):
    split = load(spec(prepared)).train
    assert isinstance(split.store, RecordImages) and len(split) == 16
    order = np.array([15, 0, 4, 9, 8])
    assert brightness(split.images(order)) == list(order)
    assert list(split.required_labels()[order]) == [n % 4 for n in order]
    # The second time nothing is looked for.
    monkeypatch.setattr("rotnet_keras.data.tfrecords._records", None)
    assert brightness(load(spec(prepared)).train.images(order)) == list(order)


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_another_copy_of_the_set_is_not_taken_for_this_one(prepared, tmp_path, cache):
    load(spec(prepared, cache=cache))
    other = tmp_path / "other"
    shutil.copytree(prepared, other)
    first, second = sorted(other.rglob("*.tfrecord-*"))
    shards = first.read_bytes(), second.read_bytes()
    first.write_bytes(shards[1]), second.write_bytes(shards[0])
    info = next(other.rglob("dataset_info.json"))
    info.write_text(info.read_text().replace('"9"', '"-"').replace('"7"', '"9"').replace('"-"', '"7"'))
    assert brightness(load(spec(other, cache=cache)).train.images(np.arange(3))) == [9, 10, 11]


def test_parts_of_a_split_and_kept_images_are_the_same(prepared):
    part = load(spec(prepared, splits={"train": "train[5:12]"})).train
    assert brightness(part.images(slice(None))) == [5, 6, 7, 8, 9, 10, 11]
    kept = load(spec(prepared, cache="memory")).train
    np.testing.assert_allclose(
        kept.images(slice(None)).astype(int), load(spec(prepared)).train.images(slice(None)).astype(int), atol=1
    )


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_wherever_images_are_kept_they_are_resampled_as_files_are(tmp_path, monkeypatch, fit):
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))

    def encode(number, shape, kind):
        return saved(photo(9 * shape[1], 9 * shape[0], seed=number), kind).getvalue()

    folder = prepare(tmp_path / "tfds", [6], encode)
    shapes = [(24, 36), (36, 24), (30, 30)]
    for cache in ("memory", "disk", "none"):
        split = load(spec(folder, cache=cache, fit=fit)).train
        for number, image in enumerate(split.images(slice(None)).astype(int)):
            content = encode(number, shapes[number % 3], "png" if number == 4 else "jpeg")
            expected = read_image(BytesIO(content), fit_of(spec(folder, fit=fit)), 3)
            assert np.abs(image - expected).max() <= 1, (cache, number)


@pytest.mark.parametrize(("kept", "store"), [("none", RecordImages), ("disk", DiskStore), ("memory", np.ndarray)])
def test_images_are_kept_where_an_earlier_start_chose(prepared, kept, store):
    places = {"train": kept}
    assert type(load(spec(prepared, cache="auto"), kept=places).train.store) is store
    assert places == {"train": kept}


def test_where_images_are_kept_is_told(prepared):
    places = {}
    load(spec(prepared, cache="auto"), kept=places)
    assert places == {"train": "memory"}


@pytest.mark.parametrize("shard_lengths", [[40], [40, 23, 5], [17] * 18])
@pytest.mark.parametrize("part", ["train", "train[3:38]"])
def test_wherever_images_are_kept_their_order_is_that_of_tfds(tmp_path, monkeypatch, shard_lengths, part):
    import tensorflow_datasets as tfds

    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    folder = prepare(tmp_path / "tfds", shard_lengths)
    stream = tfds.load("pictures", data_dir=str(folder), download=False, split=part)
    expected = [round((example["image"].mean() - 20) / 10) for example in tfds.as_numpy(stream)]
    for cache in ("memory", "disk", "none"):
        split = load(spec(folder, splits={"train": part}, cache=cache)).train
        assert brightness(split.images(slice(None))) == expected, cache


def test_crops_may_lie_in_the_whole_image(prepared):
    split = load(spec(prepared, whole=True)).train
    frames = split.store.frames(np.arange(3))
    np.testing.assert_array_equal(frames, [[0, 0, 16, 24], [0, 0, 24, 16], [0, 0, 16, 16]])
    crops = load_augmented(split, np.arange(16), Augment(crop=8, area=[0.1, 1.0]), np.random.default_rng(0))
    assert crops.shape == (16, 8, 8, 3) and brightness(crops) == list(range(16))


def test_a_file_that_was_cut_off_is_an_error(prepared):
    (shard,) = prepared.rglob("*-00001-of-00002")
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(DataError, match="ends within a record; prepare the data set again"):
        load(spec(prepared))


def test_a_record_whose_checksum_differs_is_skipped_and_named(prepared):
    """One bit in the middle of the pixels: the image can still be decoded, into other pixels."""
    (shard,) = prepared.rglob("*-00001-of-00002")
    content = bytearray(shard.read_bytes())
    content[content.index(b"\xff\xda") + 14] ^= 1
    shard.write_bytes(content)
    dataset = load(spec(prepared))
    assert brightness(dataset.train.images(np.arange(15))) == [*range(9), *range(10, 16)]
    assert "1 train records cannot be read" in dataset.notes[-1]
    assert (
        "pictures-train.tfrecord-00001-of-00002 at byte 12 (" in dataset.notes[-1] and "checksum" in dataset.notes[-1]
    )


def test_a_damaged_beginning_of_a_record_is_an_error(prepared):
    (shard,) = prepared.rglob("*-00001-of-00002")
    content = bytearray(shard.read_bytes())
    content[2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="the record at byte 0 is damaged; prepare the data set again"):
        load(spec(prepared))


def test_a_file_that_changes_after_it_was_indexed_is_noticed(prepared):
    said = []
    images = load(spec(prepared)).train.store
    assert isinstance(images, RecordImages)
    images._report = said.append
    (shard,) = prepared.rglob("*-00001-of-00002")
    content = shard.read_bytes()
    row = int(np.argmax(np.where(images.places[:, 0] == 1, images.places[:, 1], -1)))
    shard.write_bytes(content[:-20])
    assert not images.crops(np.array([row]), images._extents(np.array([row])), 16).any()
    assert "the file ends 20 bytes before the record does" in said[0]
    shard.write_bytes(b"x" + content[:-1])
    with pytest.raises(OSError, match="no record begins here any more"):
        images.contents(row)


def test_the_checksum_is_the_one_that_tensorflow_writes(prepared):
    (shard,) = prepared.rglob("*-00000-of-00002")
    content = shard.read_bytes()
    length = int.from_bytes(content[:8], "little")
    record, checksum = content[12 : 12 + length], content[12 + length : 16 + length]
    assert masked_crc32c(content[:8]) == int.from_bytes(content[8:12], "little")
    assert masked_crc32c(record) == int.from_bytes(checksum, "little")


def test_damaged_images_are_skipped_and_named(prepared):
    (shard,) = prepared.rglob("*-00001-of-00002")
    content = shard.read_bytes()
    shard.write_bytes(content.replace(b"\xff\xd8\xff\xe0", b"\0\0\0\0", 1))
    dataset = load(spec(prepared))
    assert len(dataset.train) == 15
    assert dataset.notes[-1].startswith("1 train records cannot be read and are skipped: pictures-train.tfrecord-00001")


@pytest.mark.long
def test_the_imagenet_stand_in_is_read_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path))
    # These lie in two files.
    splits = {"train": "train[8000:9000]", "test": "validation[:10]"}
    options = {"name": "imagenet2012", "data_dir": str(shared_data("tfds")), "size": 24, "validation": 0}
    options["splits"] = splits
    near, far = (load(Data(**options, cache=cache)) for cache in ("memory", "none"))
    rows = np.arange(0, len(near.train), 37)
    np.testing.assert_array_equal(near.train.labels, far.train.labels)
    difference = np.abs(near.train.images(rows).astype(int) - far.train.images(rows))
    assert difference.max() <= 1


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_the_fingerprint_follows_the_bytes_of_the_records(prepared, cache):
    before = load(spec(prepared, cache=cache))
    assert before.fingerprint.startswith("tfds-2:pictures/1.0.0:16:")
    assert before.old_fingerprint() == "tfds:pictures/1.0.0:16"
    shard = sorted(prepared.rglob("*.tfrecord-*"))[0]
    content = bytearray(shard.read_bytes())
    # The first image gets another brightness, in a record of the same length.
    examples = [n for n in range(16) if len(encoded(n, (24, 36))) == len(encoded(0, (24, 36))) and n]
    at = content.index(encoded(0, (24, 36)))
    content[at : at + len(encoded(0, (24, 36)))] = encoded(examples[0], (24, 36))
    length = int.from_bytes(content[:8], "little")
    content[12 + length : 16 + length] = masked_crc32c(bytes(content[12 : 12 + length])).to_bytes(4, "little")
    shard.write_bytes(content)
    after = load(spec(prepared, cache=cache))
    assert after.fingerprint != before.fingerprint and after.old_fingerprint() == before.old_fingerprint()
    assert brightness(after.train.images(np.arange(2))) == [examples[0], 1]
