"""Lists and annotations of a stranger: one message each, whatever their bytes are."""

import os

import pytest
from support.voc_kit import COLOURS, make_kit

from rotnet_keras.config.sections import AnnotatedData
from rotnet_keras.data.annotations import BrokenAnnotation, read_objects
from rotnet_keras.data.sources import VocSource
from rotnet_keras.errors import DataError
from rotnet_keras.inference.few_labels import read_labels

CLASSES = list(COLOURS)


@pytest.fixture
def kit(tmp_path):
    return make_kit(tmp_path / "kit", 4)


@pytest.mark.parametrize("encoding", ["utf-7", "utf-32", "idna", "no-such"])
def test_an_encoding_that_the_parser_lacks_is_reported(kit, encoding):
    file = kit / "Annotations" / "000000.xml"
    file.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + file.read_bytes())
    with pytest.raises(BrokenAnnotation, match="its annotation cannot be read"):
        read_objects(file, CLASSES, (48, 40))


def test_entities_that_grow_without_end_and_deep_elements_are_refused(kit):
    file = kit / "Annotations" / "000000.xml"
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))
    file.write_text(f'<!DOCTYPE a [<!ENTITY e0 "x">{entities}]><a>&e12;</a>')
    with pytest.raises(BrokenAnnotation, match="its annotation cannot be read"):
        read_objects(file, CLASSES, (48, 40))


def test_a_pipe_is_not_waited_for(kit):
    for name in ("Annotations/000000.xml", "ImageSets/Main/train.txt", "labels.csv"):
        (kit / name).unlink(missing_ok=True)
        os.mkfifo(kit / name)
    with pytest.raises(BrokenAnnotation, match="its annotation cannot be read"):
        read_objects(kit / "Annotations" / "000000.xml", CLASSES, (48, 40))
    with pytest.raises(DataError, match=r"train\.txt: cannot be read"):
        VocSource(kit).image_names(AnnotatedData(name=str(kit), classes=CLASSES), masks=False)
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read"):
        read_labels(kit / "labels.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"000000\n\xff\xfe", "this is no UTF-8 text"),
        (b"../../secret", "expected the name of an image in JPEGImages, got '../../secret'"),
        (b"..\\..\\secret", "expected the name of an image in JPEGImages"),
        (b"/etc/passwd", "expected the name of an image in JPEGImages"),
        (b"0\x000000", "expected the name of an image in JPEGImages"),
        (b"0" * 5000, "expected the name of an image in JPEGImages"),
    ],
    ids=["bytes", "up", "back", "root", "zero", "long"],
)
def test_a_list_of_a_kit_names_images_in_it(kit, content, message):
    (kit / "ImageSets" / "Main" / "train.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        VocSource(kit).image_names(AnnotatedData(name=str(kit), classes=CLASSES), masks=False)


@pytest.mark.parametrize("name", ["~nosuchuser/a.jpg", "a" * 5000, "a\0b"], ids=["home", "long", "zero"])
def test_a_list_of_labels_with_a_name_that_no_file_has_is_reported(kit, name):
    (kit / "labels.csv").write_text(f"file,label\n{name},cat\n")
    with pytest.raises(DataError, match=r"labels\.csv, line 2: (no file|cannot be read)|labels\.csv: "):
        read_labels(kit / "labels.csv")
