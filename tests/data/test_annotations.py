"""Annotated images in VOC's layout and of TensorFlow Datasets, and broken annotations."""

import unicodedata

import numpy as np
import pytest
from PIL import Image
from support.tiny import shared_data
from support.value_images import png16, values
from support.voc_kit import OBJECT

from rotnet_keras.config.sections import AnnotatedData, Splits
from rotnet_keras.data.annotations import load_annotated
from rotnet_keras.data.image_files import transpose, upright_corners
from rotnet_keras.errors import DataError

CAT = OBJECT.format("cat", 0, 1, 1, 30, 20)


@pytest.fixture
def kit(tmp_path):
    """Four images of 30 x 20 pixels, each filled by a cat: three to train on and one to test."""
    names = ["a", "b", "c", "d"]
    for task in ("Main", "Segmentation"):
        lists = tmp_path / "ImageSets" / task
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("a\nb\nc\n")
        (lists / "val.txt").write_text("d\n")
    for folder in ("JPEGImages", "Annotations", "SegmentationClass"):
        (tmp_path / folder).mkdir()
    for value, name in enumerate(names):
        Image.new("RGB", (30, 20), (value, 0, 0)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / f"{name}.xml").write_text(f"<annotation>{CAT}</annotation>")
        mask = Image.fromarray(np.full((20, 30), 8, np.uint8))
        mask.putpalette([*range(256)] * 3)
        mask.save(tmp_path / "SegmentationClass" / f"{name}.png")
    return tmp_path


def read(kit, masks=False, **options):
    return load_annotated(AnnotatedData(name=str(kit), **options), masks)


def test_boxes_begin_at_zero_and_end_after_their_last_pixel(kit):
    more = OBJECT.format("dog", 1, 6, 5, 10, 8)
    (kit / "Annotations" / "b.xml").write_text(f"<annotation>{CAT}{more}</annotation>")
    dataset = read(kit)
    assert (len(dataset.train), dataset.validation, len(dataset.test)) == (3, None, 1)
    objects = dataset.train.objects[1]
    assert objects.corners.tolist() == [[0, 0, 20, 30], [4, 5, 8, 10]]
    assert [dataset.class_names[number] for number in objects.classes] == ["cat", "dog"]
    assert objects.difficult.tolist() == [False, True]
    assert dataset.train.image(1).shape == (20, 30, 3)


def test_lists_can_be_joined_and_cut(kit):
    dataset = read(kit, splits=Splits(train="train[1:]+val", test="train[:1]"))
    assert (len(dataset.train), len(dataset.test)) == (3, 1)
    with pytest.raises(DataError, match=r"splits\.train.*trian.*there are: train, val"):
        read(kit, splits=Splits(train="trian"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "annotation is missing"),
        ("", "annotation is empty"),
        ("<annotation><object>", "annotation cannot be read"),
        (f"<annotation>{OBJECT.format('unicorn', 0, 1, 1, 9, 9)}</annotation>", "'unicorn', which is not one"),
        (f"<annotation>{OBJECT.format('cat', 0, 1, 1, 31, 9)}</annotation>", "not inside the image of 30 x 20"),
        (f"<annotation>{OBJECT.format('cat', 0, 9, 1, 5, 9)}</annotation>", "not inside the image"),
        (f"<annotation>{OBJECT.format('cat', 0, 'nan', 1, 5, 9)}</annotation>", "not inside the image"),
        (f"<annotation>{OBJECT.format('cat', 0, '', 1, 5, 9)}</annotation>", "has no valid box"),
    ],
)
def test_a_broken_annotation_is_refused_by_name_or_skipped(kit, content, why):
    file = kit / "Annotations" / "b.xml"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(DataError, match=f"b: .*{why}.*broken=skip"):
        read(kit)
    dataset = read(kit, broken="skip")
    assert len(dataset.train) == 2
    assert any("b: " in note for note in dataset.notes)
    # The remaining annotations still belong to their images.
    assert [dataset.train.image(i)[0, 0, 0] for i in range(2)] == [0, 2]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda file: file.unlink(), "mask is missing"),
        (lambda file: file.write_bytes(b""), "mask is empty"),
        (lambda file: Image.new("RGB", (30, 20)).save(file), "mask has colours"),
        (lambda file: Image.new("L", (20, 30)).save(file), "mask has 20 x 30 pixels"),
        (lambda file: Image.new("L", (30, 20), 21).save(file), "mask has the value 21"),
    ],
)
def test_a_broken_mask_is_refused_by_name_or_skipped(kit, spoil, why):
    spoil(kit / "SegmentationClass" / "b.png")
    with pytest.raises(DataError, match=f"b: its {why}"):
        read(kit, masks=True)
    dataset = read(kit, masks=True, broken="skip")
    assert len(dataset.train) == 2
    assert np.unique(dataset.train.mask(1)).tolist() == [8]


def test_images_that_cannot_be_read_are_named(kit):
    (kit / "JPEGImages" / "a.jpg").write_bytes(b"")
    (kit / "JPEGImages" / "d.jpg").unlink()
    with pytest.raises(DataError, match="2 annotations are broken: a: the image is empty; d: the image is missing"):
        read(kit)
    with pytest.raises(DataError, match="the split has no images"):
        read(kit, broken="skip")


def test_images_that_are_trained_on_do_not_validate_or_test_by_default(kit):
    everything = {"train": "train[:2]+val[1:]"}
    dataset = read(kit, splits=Splits(**everything))
    assert (len(dataset.train), dataset.validation, dataset.test) == (2, None, None)
    dataset = read(kit, splits=Splits(**everything, test="val"))
    assert (dataset.validation, len(dataset.test)) == (None, 1)
    for task in ("Main", "Segmentation"):
        for name, names in {"test": "d\n", "trainval": "a\nb\nc\n", "val": "c\n"}.items():
            (kit / "ImageSets" / task / f"{name}.txt").write_text(names)
    dataset = read(kit)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [3, 1, 1]
    dataset = read(kit, splits=Splits(train="trainval"))
    assert (len(dataset.train), dataset.validation, len(dataset.test)) == (3, None, 1)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(DataError, match="JPEGImages"):
        read(tmp_path)


@pytest.mark.long
def test_the_voc_of_tfds_has_the_boxes_of_the_kit():
    import tensorflow_datasets as tfds

    data = AnnotatedData(name="voc/2007", data_dir=str(shared_data("tfds")))
    dataset = load_annotated(data, False)
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    records = {name: list(tfds.as_numpy(tfds.load(data.name, data_dir=data.data_dir, split=name))) for name in splits}
    for name, split in splits.items():
        for objects, record in zip(split.objects, records[name], strict=True):
            assert list(objects.classes) == list(record["objects"]["label"])
            assert list(objects.difficult) == list(record["objects"]["is_difficult"])
    boxes = [objects for split in splits.values() for objects in split.objects]
    together = data.model_copy(update={"splits": Splits(train="train+validation")})
    both = load_annotated(together, False)
    assert len(both.train) == len(dataset.train) + len(dataset.validation)
    assert both.validation is None and len(both.test) == len(dataset.test)
    # The kit's own numbers are whole.
    corners = np.concatenate([objects.corners for objects in boxes])
    assert np.abs(corners - corners.round()).max() < 0.01
    with pytest.raises(DataError, match="no masks"):
        load_annotated(data, True)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("said", ["upright", "stored", "nothing"])
def test_size_tells_which_pixels_the_boxes_were_drawn_on(kit, orientation, said):
    """A red rectangle in a grey image: whichever pixels it was marked on, the box lies on it in the upright image."""
    pixels = np.full((20, 30, 3), 128, np.uint8)
    pixels[2:12, 4:10] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(kit / "JPEGImages" / "a.jpg", exif=exif, quality=100, subsampling=0)
    upright = (20, 30) if orientation > 4 else (30, 20)
    unclear = said == "nothing" or orientation <= 4
    ((top, left, bottom, right),) = upright_corners([(2, 4, 12, 10)], (30, 20), orientation).astype(int)
    box = (5, 3, 10, 12) if said == "stored" and not unclear else (left + 1, top + 1, right, bottom)
    width, height = (30, 20) if said == "stored" else upright
    size = "" if said == "nothing" else f"<size><width>{width}</width><height>{height}</height></size>"
    (kit / "Annotations" / "a.xml").write_text(f"<annotation>{size}{OBJECT.format('cat', 0, *box)}</annotation>")
    dataset = read(kit)
    red = dataset.train.image(0)[..., 1] < 64
    assert dataset.train.objects[0].corners.tolist() == [[top, left, bottom, right]]
    assert red[top:bottom, left:right].all() and red.sum() == 60
    notes = [note for note in dataset.notes if "EXIF orientation" in note]
    if orientation == 1 or (said == "upright" and orientation > 4):
        assert not notes
    else:
        assert len(notes) == 1 and ("upright image" if unclear else "are rotated with the pixels") in notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn", ["upright", "stored"])
def test_masks_follow_the_pixels_that_they_were_drawn_on(kit, orientation, drawn):
    """A red rectangle in a grey image: whichever pixels it was marked on, its class lies on it in the upright image."""
    stored = np.full((20, 30, 3), 128, np.uint8)
    stored[2:12, 4:10] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(kit / "JPEGImages" / "a.jpg", exif=exif, quality=100, subsampling=0)
    mask = Image.fromarray(np.where(stored[..., 1] < 64, np.uint8(8), np.uint8(0)))
    clear = orientation > 4
    if drawn == "upright" or not clear:
        mask = transpose(mask, orientation)
    mask.putpalette([*range(256)] * 3)
    mask.save(kit / "SegmentationClass" / "a.png")
    dataset = read(kit, masks=True)
    red = dataset.train.image(0)[..., 1] < 64
    assert red.sum() == 60 and red.shape == ((30, 20) if clear else (20, 30))
    np.testing.assert_array_equal(dataset.train.mask(0), np.where(red, 8, 0))
    notes = [note for note in dataset.notes if "EXIF orientation" in note]
    if orientation == 1 or (drawn == "upright" and clear):
        assert not notes
    else:
        said = "masks of 1 images with an EXIF orientation are " + ("rotated with" if clear else "taken as drawn on")
        assert len(notes) == 1 and said in notes[0]


def write_boxes(kit, **boxes):
    """One cat an image: xmin, ymin, xmax, ymax."""
    for name, box in boxes.items():
        (kit / "Annotations" / f"{name}.xml").write_text(f"<annotation>{OBJECT.format('cat', 0, *box)}</annotation>")


def test_boxes_of_a_kit_that_counts_pixels_from_zero(kit):
    write_boxes(kit, a=(0, 0, 29, 19), b=(4, 5, 10, 9), c=(1, 1, 29, 19), d=(0, 3, 9, 9))
    dataset = read(kit)
    assert [o.corners.tolist() for o in dataset.train.objects] == [[[0, 0, 20, 30]], [[5, 4, 10, 11]], [[1, 1, 20, 30]]]
    assert dataset.test.objects[0].corners.tolist() == [[3, 0, 10, 10]]
    assert "the boxes of 2 images begin at 0, and none reaches an edge" in " ".join(dataset.notes)
    # A box that ends at the width can only be of a kit that counts from 1, where none begins at 0.
    write_boxes(kit, c=(1, 1, 30, 20))
    with pytest.raises(DataError, match=r"2 annotations are broken: a: the box of a 'cat' .* is not inside the image"):
        read(kit)
    dataset = read(kit, broken="skip", splits=Splits(test="train"))
    assert [o.corners.tolist() for o in dataset.train.objects] == [[[4, 3, 9, 10]], [[0, 0, 20, 30]]]


def test_objects_that_are_unspecified_as_difficult(kit):
    (kit / "Annotations" / "b.xml").write_text(
        f"<annotation>{OBJECT.format('cat', 'Unspecified', 1, 1, 9, 9)}</annotation>"
    )
    dataset = read(kit)
    assert dataset.train.objects[1].difficult.tolist() == [False]
    assert "1 objects are Unspecified as difficult or not" in " ".join(dataset.notes)
    (kit / "Annotations" / "b.xml").write_text(f"<annotation>{OBJECT.format('cat', 'maybe', 1, 1, 9, 9)}</annotation>")
    with pytest.raises(DataError, match="b: an object 'cat' has <difficult> 'maybe': expected 0 or 1"):
        read(kit)


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".bmp"])
def test_images_may_have_other_formats_and_spaces_in_their_names(kit, suffix):
    Image.new("RGB", (30, 20), (0, 200, 0)).save(kit / "JPEGImages" / f"two words{suffix}")
    (kit / "Annotations" / "a.xml").rename(kit / "Annotations" / "two words.xml")
    (kit / "ImageSets" / "Main" / "train.txt").write_text("two words\r\nb\n\nc")
    dataset = read(kit)
    assert len(dataset.train) == 3
    green = dataset.train.image(0)[0, 0].astype(int)
    assert abs(green - [0, 200, 0]).max() < 8
    before = dataset.fingerprint
    Image.new("RGB", (30, 20), (0, 0, 200)).save(kit / "JPEGImages" / f"two words{suffix}")
    assert read(kit).fingerprint != before


def test_the_list_val_is_known_by_the_name_of_tensorflow_datasets_too(kit):
    dataset = read(kit, splits=Splits(train="train+validation", test="validation[:1]"))
    assert (len(dataset.train), len(dataset.test)) == (4, 1)


def test_an_annotation_in_an_encoding_that_is_not_read_is_skipped_by_name(kit):
    head = '<?xml version="1.0" encoding="gb2312"?>'
    (kit / "Annotations" / "b.xml").write_bytes(f"{head}<annotation>{CAT}<x>\u732b</x></annotation>".encode("gb2312"))
    with pytest.raises(DataError, match=r"b: its annotation cannot be read .*broken=skip"):
        read(kit)
    assert len(read(kit, broken="skip").train) == 2


@pytest.mark.parametrize("masks", [False, True])
def test_few_bits_in_sixteen_are_refused(kit, masks):
    for name in "abcd":
        (kit / "JPEGImages" / f"{name}.jpg").unlink()
        (kit / "JPEGImages" / f"{name}.png").write_bytes(png16(values((20, 30, 3))))
    with pytest.raises(
        DataError, match=r"16-bit files in .* go up to 4,09\d of 65,535.* or save the images with 8 bits"
    ):
        read(kit, masks)
    for name in "abcd":
        (kit / "JPEGImages" / f"{name}.png").write_bytes(png16(values((20, 30, 3), most=65535)))
    assert len(read(kit, masks).train) == 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_lists_of_other_makers_name_the_same_images(kit, encoding, form):
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (kit / folder / "sub").mkdir()
        (kit / folder / f"a.{suffix}").rename(kit / folder / f"caf\u00e9.{suffix}")
        (kit / folder / f"b.{suffix}").rename(kit / folder / "sub" / f"b.{suffix}")
    text = unicodedata.normalize(form, "caf\u00e9\r\nsub\\b\n\n c ")
    (kit / "ImageSets" / "Main" / "train.txt").write_bytes(text.encode(encoding))
    store = read(kit).train.store
    names = [store.name(row).removeprefix(f"{kit}/JPEGImages/") for row in range(3)]
    assert names == ["caf\u00e9.jpg", "sub/b.jpg", "c.jpg"]
