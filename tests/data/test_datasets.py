import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.tfds_folder import prepare
from support.tiny import shared_data, upright_images

from rotnet_keras.config.sections import Augment, Data, Splits
from rotnet_keras.data import decoding
from rotnet_keras.data.audit import labelled_splits
from rotnet_keras.data.batches import load_augmented
from rotnet_keras.data.datasets import load
from rotnet_keras.data.decoding import UnreadableImage, read_image
from rotnet_keras.data.folders import FolderImages
from rotnet_keras.data.sizes import count_training_images
from rotnet_keras.data.sources import find_source, pin_paths
from rotnet_keras.data.stores import DiskStore, choose_cache
from rotnet_keras.errors import DataError


def save_image(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def photo(size=(20, 20), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    for n in range(10):
        save_image(tmp_path / "photos" / f"class_{n % 2}" / f"{n}.png", photo(seed=n))
    return tmp_path / "photos"


def test_fashion_mini_is_balanced_and_named():
    data = load(Data(name="fashion_mini"))
    assert (len(data.train), len(data.validation), len(data.test)) == (4500, 500, 1000)
    assert data.image_shape == (28, 28, 1)
    assert data.class_names[0] == "T-shirt" and len(data.class_names) == 10
    assert (np.bincount(data.test.labels) == 100).all()
    both = np.concatenate([data.train.labels, data.validation.labels])
    assert (np.bincount(both) == 500).all()
    assert not set(data.train.rows) & set(data.validation.rows)


def test_mean_and_std_are_those_of_the_training_images():
    data = load(Data(name="fashion_mini"))
    pixels = data.train.images(slice(None)) / 1.0
    assert data.mean == pytest.approx([pixels.mean()], abs=0.01)
    assert data.std == pytest.approx([pixels.std()], abs=0.01)


def test_arrays_of_any_number_of_channels(tmp_path):
    images, _ = upright_images(30, channels=7)
    np.savez(tmp_path / "a.npz", images=images)
    data = load(Data(name=str(tmp_path / "a.npz")))
    assert data.image_shape == (16, 16, 7) and len(data.mean) == 7
    assert data.train.labels is None and data.test is None
    np.testing.assert_array_equal(data.train.images([0])[0], images[data.train.rows[0]])


def test_values_that_are_not_bytes_are_kept_and_a_note_says_so(tmp_path):
    images = np.linspace(-3, 5, 20 * 64, dtype=np.float32).reshape(20, 8, 8, 1)
    np.savez(tmp_path / "a.npz", x_train=images, x_test=images[-4:])
    data = load(Data(name=str(tmp_path / "a.npz")))
    np.testing.assert_array_equal(data.train.images(slice(None)), images[data.train.rows])
    np.testing.assert_array_equal(data.test.images(slice(None)), images[-4:])
    assert "from -3 to 5 are kept as they are" in data.notes[0]
    low, high = np.percentile(images[data.train.rows], [0.1, 99.9])
    assert (data.values.low[0], data.values.high[0]) == pytest.approx((low, high), abs=1e-4)
    assert data.mean == pytest.approx([images[data.train.rows].mean()], abs=0.02)


@pytest.mark.parametrize("count", [1, 2])
def test_few_images_and_labels_in_a_column(tmp_path, count):
    labels = np.arange(count)[:, None]
    np.savez(tmp_path / "a.npz", x_train=np.zeros((count, 8, 8, 3), np.uint8), y_train=labels)
    data = load(Data(name=str(tmp_path / "a.npz"), validation=0))
    assert data.train.labels.tolist() == list(range(count))


def test_labels_that_are_no_numbers_of_classes_are_refused(tmp_path):
    arrays = {"x_train": np.zeros((4, 8, 8, 3), np.uint8), "y_train": np.array([7, 7, 20_000_001, 9])}
    np.savez(tmp_path / "ids.npz", **arrays)
    with pytest.raises(DataError, match="labels go up to 20000001 for 4 images"):
        load(Data(name=str(tmp_path / "ids.npz")))


def test_a_pickle_in_an_npz_is_not_opened(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="allow_pickle"):
        load(Data(name=str(tmp_path / "a.npz")))


def test_arrays_that_are_not_square_stay_so_without_a_size(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((9, 8, 12, 3), np.uint8))
    assert load(Data(name=str(tmp_path / "a.npz"))).image_shape == (8, 12, 3)
    assert load(Data(name=str(tmp_path / "a.npz"), size=[16, 8])).image_shape == (16, 8, 3)
    assert load(Data(name=str(tmp_path / "a.npz"), size=8)).image_shape == (8, 8, 3)


def test_a_folder_per_class(folder):
    data = load(Data(name=str(folder), size=16, validation=0.2))
    assert data.class_names == ["class_0", "class_1"]
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 2, 2)
    assert "no test split" in data.notes[0]
    rows = np.concatenate([data.train.rows, data.validation.rows, data.test.rows])
    assert sorted(rows) == list(range(10))


def test_a_flat_folder_has_no_labels(tmp_path):
    for n in range(4):
        save_image(tmp_path / f"{n}.jpg", photo(seed=n))
    data = load(Data(name=str(tmp_path), size=16, validation=0.25))
    assert data.train.labels is None and data.test is None and len(data.validation) == 1


@pytest.mark.parametrize("validation", [0.2, 0.0])
@pytest.mark.parametrize(
    ("arrays", "labelled"),
    [
        ("x_train", ""),
        ("x_train y_train", "train validation test"),
        ("x_train y_train x_test", "train validation"),
        ("x_train y_train x_val y_test x_test", "train test"),
        ("x_train x_test y_test", "test"),
    ],
)
def test_which_splits_have_labels_is_known_before_images_are_read(tmp_path, arrays, labelled, validation):
    images, labels = upright_images(20)
    np.savez(tmp_path / "a.npz", **{name: images if name[0] == "x" else labels for name in arrays.split()})
    expected = set(labelled.split())
    if not validation:
        expected -= {"validation", "test"} - {name.removeprefix("y_") for name in arrays.split()}
    data = Data(name=str(tmp_path / "a.npz"), validation=validation)
    assert load(data).labelled == labelled_splits(data) == expected


def test_which_splits_of_files_have_labels_is_known_before_images_are_read(folder, tmp_path):
    assert labelled_splits(Data(name=str(folder), validation=0.2)) == {"train", "validation", "test"}
    assert labelled_splits(Data(name=str(folder), validation=0.0)) == {"train"}
    for file in folder.rglob("*.png"):
        file.rename(tmp_path / "photos" / file.name)
    for place in folder.iterdir():
        if place.is_dir():
            place.rmdir()
    assert labelled_splits(Data(name=str(folder))) == load(Data(name=str(folder), size=8)).labelled == set()
    prepare(tmp_path / "tfds", [3])
    assert labelled_splits(Data(name="pictures", data_dir=str(tmp_path / "tfds"))) >= {"train"}


def test_folders_per_split(tmp_path):
    for split, count in (("train", 5), ("val", 3), ("test", 2)):
        for n in range(count):
            save_image(tmp_path / split / f"class_{n % 2}" / f"{n}.png", photo(seed=n))
    data = load(Data(name=str(tmp_path), size=8))
    assert (len(data.train), len(data.validation), len(data.test)) == (5, 3, 2)
    assert list(data.test.labels) == [0, 1]


def test_broken_files_are_skipped_counted_and_named(folder):
    (folder / "class_0" / "empty.jpg").touch()
    (folder / "class_0" / "text.jpg").write_text("not an image")
    save_image(folder / "class_1" / "cut.jpg", photo((200, 200)))
    whole = (folder / "class_1" / "cut.jpg").read_bytes()
    (folder / "class_1" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    data = load(Data(name=str(folder), size=16, validation=0))
    note = next(note for note in data.notes if "cannot be read" in note)
    assert note.startswith("3 of 13 train files")
    assert all(name in note for name in ("empty.jpg (the file is empty)", "text.jpg", "cut.jpg"))
    assert len(data.train) == 10


def test_a_folder_without_images_says_what_is_there(tmp_path):
    (tmp_path / "a.heic").touch()
    with pytest.raises(DataError, match=r"looked for jpg.*found 1 other files: \.heic"):
        find_source(Data(name=str(tmp_path)))


def test_the_disk_cache_holds_the_same_images_and_is_used_again(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    (folder / "class_0" / "empty.jpg").touch()
    spec = {"name": str(folder), "size": 16, "channels": 3, "validation": 0}
    in_memory = load(Data(cache="memory", **spec))
    (tmp_path / "cache").mkdir(exist_ok=True)
    left, in_work = tmp_path / "cache" / ".0a1b.tmp.pixels", tmp_path / "cache" / ".2c3d.tmp.pixels"
    for file in (left, in_work):
        file.write_bytes(b"half")
    os.utime(left, (0, 0))
    first = load(Data(cache="disk", **spec))
    # What a process left that was killed long ago is removed; another one may be writing now.
    assert not left.exists() and in_work.exists()
    decoded = []
    monkeypatch.setattr("rotnet_keras.data.decoding.read_header", lambda *a: decoded.append(a))
    second = load(Data(cache="disk", **spec))
    assert isinstance(second.train.store, DiskStore) and not decoded
    for data in (first, second):
        np.testing.assert_array_equal(data.train.images(slice(None)), in_memory.train.store)
        np.testing.assert_array_equal(data.train.labels, in_memory.train.labels)
        assert data.notes == in_memory.notes


def test_a_disk_cache_that_was_cut_off_is_an_error(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    data = load(Data(name=str(folder), size=16, validation=0, cache="disk"))
    (pixels,) = (tmp_path / "cache").glob("*.pixels")
    pixels.write_bytes(pixels.read_bytes()[:-1])
    with pytest.raises(DataError, match="shorter than it was written"):
        data.train.images(slice(None))
    (index,) = (tmp_path / "cache").glob("*.index.npz")
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(DataError, match="remove it and start again"):
        load(Data(name=str(folder), size=16, validation=0, cache="disk"))


def test_images_are_kept_where_they_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=8e9))
    assert choose_cache(50_000, (32, 32, 3), "auto") == "memory"
    assert choose_cache(100_000, (64, 64, 3), "auto") == "disk"
    assert choose_cache(100_000, (256, 256, 3), "auto") == "none"
    assert choose_cache(100_000, (256, 256, 3), "memory") == "memory"


def test_without_a_cache_the_same_pixels_are_decoded_at_each_use(folder):
    spec = {"name": str(folder), "size": 24, "validation": 0}
    kept, decoded = load(Data(cache="memory", **spec)), load(Data(cache="none", **spec))
    assert isinstance(decoded.train.store, FolderImages)
    np.testing.assert_array_equal(decoded.train.images(slice(None)), kept.train.store)
    np.testing.assert_array_equal(decoded.train.labels, kept.train.labels)
    augment, positions = Augment(crop=16, flip=True), np.arange(len(kept.train))
    splits = (decoded.train, kept.train)
    ours, theirs = (load_augmented(split, positions, augment, np.random.default_rng(0)) for split in splits)
    assert ours.shape == (10, 16, 16, 3)
    np.testing.assert_allclose(ours.astype(int), theirs.astype(int), atol=1)


def test_headers_are_read_once_as_long_as_the_files_stay(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    spec = Data(name=str(folder), size=16, validation=0, cache="none")
    first = load(spec)
    read, read_header = [], decoding.read_header
    monkeypatch.setattr(decoding, "read_header", lambda file: read.append(file) or read_header(file))
    sampled = len(load(spec).train) and len(read)
    np.testing.assert_array_equal(load(spec).train.images(slice(None)), first.train.images(slice(None)))
    # Some are read to see what the images are like, however many there are.
    assert len(read) == 2 * sampled
    (kept,) = (tmp_path / "cache").glob("headers-*.npz")
    kept.write_bytes(kept.read_bytes()[:-50])
    assert len(load(spec).train) == 10 and len(read) == 3 * sampled + 10
    save_image(folder / "class_0" / "new.png", photo((30, 40)))
    assert len(load(spec).train) == 11 and len(read) == 4 * sampled + 21


def test_without_a_cache_damaged_files_are_reported_once(folder):
    (folder / "class_0" / "text.jpg").write_text("not an image")
    save_image(folder / "class_1" / "cut.jpg", photo((200, 200)))
    whole = (folder / "class_1" / "cut.jpg").read_bytes()
    (folder / "class_1" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    data = load(Data(name=str(folder), size=16, validation=0, cache="none"))
    assert len(data.train) == 11
    for _ in range(2):
        assert (data.train.images(slice(None)).max((1, 2, 3)) == 0).sum() == 1
    assert len(data.notes) == 2
    assert data.notes[0].startswith("1 of 12 train files cannot be read and are skipped: class_0/text.jpg")
    assert "cut.jpg cannot be read and is replaced by a black image" in data.notes[1]


def test_the_fingerprint_follows_the_files(folder):
    before = find_source(Data(name=str(folder))).fingerprint()
    assert before == find_source(Data(name=str(folder))).fingerprint()
    save_image(folder / "class_0" / "new.png", photo())
    assert before != find_source(Data(name=str(folder))).fingerprint()


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tiff", "webp", "jpg"])
def test_formats(tmp_path, suffix):
    flat = np.full((20, 20, 3), (200, 100, 50), np.uint8)
    save_image(tmp_path / f"a.{suffix}", flat)
    pixels = read_image(tmp_path / f"a.{suffix}", 8, 3)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[4, 4], [200, 100, 50], atol=6)


def test_sixteen_bits_become_eight(tmp_path):
    save_image(tmp_path / "a.png", np.full((8, 8), 257 * 77, np.uint16))
    assert (read_image(tmp_path / "a.png", 8, 1) == 77).all()
    assert read_image(tmp_path / "a.png", 8, 3).shape == (8, 8, 3)


def test_transparent_parts_become_white(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:4, :, 3] = 255
    save_image(tmp_path / "a.png", rgba)
    pixels = read_image(tmp_path / "a.png", 8, 3)
    assert (pixels[:4] == 0).all() and (pixels[4:] == 255).all()


def test_the_exif_orientation_is_applied(tmp_path):
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to view": the top comes to the right
    save_image(tmp_path / "a.png", image, exif=exif)
    pixels = read_image(tmp_path / "a.png", 16, 1)
    assert (pixels[:, 8:] == 255).all() and (pixels[:, :8] == 0).all()


def test_the_central_square_is_kept(tmp_path):
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255
    save_image(tmp_path / "a.png", image)
    assert (read_image(tmp_path / "a.png", 10, 3) == 255).all()


def test_a_decompression_bomb_is_an_unreadable_image(tmp_path, monkeypatch):
    save_image(tmp_path / "a.png", photo((40, 40)))
    monkeypatch.setenv("ROTNET_MAX_PIXELS", "1000")
    with pytest.raises(
        UnreadableImage, match=r"1,600 pixels, which is too many: at most 1,000.*ROTNET_MAX_PIXELS to 1600"
    ):
        read_image(tmp_path / "a.png", 8, 3)


def test_a_folder_of_oddities_is_read_and_each_that_is_no_image_is_named(folder):
    images = len(load(Data(name=str(folder), size=8, validation=0.0)).train)
    Image.new("CMYK", (30, 30)).save(folder / "class_0" / "cmyk.jpg")
    Image.new("RGB", (100_000, 1)).save(folder / "class_0" / "long.png")
    Image.new("RGB", (9, 9)).save(folder / "class_0" / "named_jpg.jpg", "PNG")
    frames = [Image.new("P", (30, 30), number) for number in range(3)]
    frames[0].save(folder / "class_0" / "moving.gif", save_all=True, append_images=frames[1:])
    odd = folder / "class_1"
    (odd / "loop").symlink_to(".")
    (odd / "gone.jpg").symlink_to("nowhere.jpg")
    (odd / "self.jpg").symlink_to("self.jpg")
    (odd / "folder.jpg").mkdir()
    os.mkfifo(odd / "pipe.jpg")
    (odd / "text.png").write_text("hello")
    (odd / "\x1b[2J.jpg").touch()
    (odd / os.fsdecode(b"\xff.jpg")).touch()
    dataset = load(Data(name=str(folder), size=8, validation=0.0))
    assert len(dataset.train) == images + 4
    (note,) = (note for note in dataset.notes if "cannot be read" in note)
    assert "6 of " in note and "pipe.jpg (a pipe, where a regular file is expected)" in note
    assert load(Data(name=str(folder), size=8, validation=0.0)).fingerprint == dataset.fingerprint


def test_a_missing_tfds_name_says_where_was_looked(tmp_path, monkeypatch):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    (tmp_path / "cifar10" / "3.0.2" / "dataset_info.json").touch()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"prepared there: cifar10; did you mean 'cifar10'"):
        find_source(Data(name="cifar11"))


def test_pinned_data_do_not_depend_on_folder_or_environment(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert pin_paths(Data(name="./photos")).name == str(folder)


@pytest.mark.slow
def test_the_real_cifar10():
    section = Data(name="cifar10", data_dir=str(shared_data("tfds")), validation=0.1)
    data = load(section)
    assert (len(data.train), len(data.validation), len(data.test)) == (45_000, 5_000, 10_000)
    assert count_training_images(section) == len(data.train)
    assert data.class_names[3] == "cat" and (np.bincount(data.test.labels) == 1000).all()
    measured = data.train.store.reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(measured, data.mean, atol=0.1)


@pytest.mark.long
def test_real_scenes_and_a_tfds_set_whose_test_is_called_validation():
    scenes = load(Data(name=str(shared_data("scenes15")), size=32))
    files = list((shared_data("scenes15") / "test").glob("*/*.jpg"))
    classes = sorted({file.parent.name for file in files})
    assert (len(scenes.test), scenes.class_names, scenes.image_shape) == (len(files), classes, (32, 32, 3))
    whole = Data(name="imagenet2012", data_dir=str(shared_data("tfds")), size=32, validation=0.1)
    imagenet = load(whole.model_copy(update={"splits": Splits(train="train[:500]")}))
    stated = stated_counts(whole)
    assert (len(imagenet.train), len(imagenet.validation), len(imagenet.test)) == (450, 50, stated["validation"])
    assert count_training_images(whole) == stated["train"] - round(0.1 * stated["train"])


def stated_counts(section):
    """How many images of each split the files of a tfds data set state."""
    import tensorflow_datasets as tfds

    splits = tfds.builder(section.name, data_dir=section.data_dir).info.splits
    return {name: split.num_examples for name, split in splits.items()}


def test_real_images_of_many_sizes_are_resized_to_one():
    section = Data(name="voc/2007", data_dir=str(shared_data("tfds")), size=48)
    voc, stated = load(section), stated_counts(section)
    assert voc.image_shape == (48, 48, 3)
    assert (len(voc.train), len(voc.validation)) == (stated["train"], stated["validation"])
    assert count_training_images(section) == len(voc.train)
