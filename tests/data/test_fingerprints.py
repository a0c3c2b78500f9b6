"""What identifies data is the content of their files; where decoded images are kept is chosen once for a run."""

import json
import os
import time

import numpy as np
import pytest
from PIL import Image
from support.tiny import TINY_RECIPE
from support.voc_kit import OBJECT

from rotnet_keras.config.loading import load_recipe, to_toml
from rotnet_keras.config.sections import AnnotatedData, Data
from rotnet_keras.data import decoding, fingerprints, stores
from rotnet_keras.data.datasets import load
from rotnet_keras.data.folders import FolderImages
from rotnet_keras.data.sources import VocSource, find_source
from rotnet_keras.errors import DataError
from rotnet_keras.runs.events import EventWriter
from rotnet_keras.runs.launch import create_run
from rotnet_keras.training import setup
from rotnet_keras.training.cluster import TrainingProcess
from rotnet_keras.training.console import Console
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import prepare_data
from rotnet_keras.training.stopping import Stop


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def save_bmps(folder, seed):
    """Ten BMP files: all of one size, whatever their pixels."""
    for n in range(10):
        file = folder / f"class_{n % 2}" / f"{n}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([seed, n]).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    return folder


def settle(folder):
    """Make the files of a folder old enough for their hashes to be kept."""
    for file in folder.rglob("*"):
        os.utime(file, (1e9, 1e9))
    time.sleep(0.01)


def fingerprint(path):
    return find_source(Data(name=str(path))).fingerprint()


@pytest.mark.parametrize("kept", ["memory", "disk", "none"])
def test_folders_of_equal_names_and_sizes_do_not_share_pixels(tmp_path, kept):
    one, two = save_bmps(tmp_path / "one", 1), save_bmps(tmp_path / "two", 2)
    first, second = (load(Data(name=str(path), size=20, validation=0, cache=kept)) for path in (one, two))
    assert find_source(Data(name=str(one))).old_fingerprint() == find_source(Data(name=str(two))).old_fingerprint()
    assert first.fingerprint != second.fingerprint
    for split, folder in ((first.train, one), (second.train, two)):
        expected = np.stack([np.asarray(Image.open(file)) for file in sorted(folder.rglob("*.bmp"))])
        assert (split.images(slice(None)) == expected).all()


@pytest.mark.parametrize("keep_times", [False, True])
def test_an_edit_to_the_same_size_changes_the_fingerprint(tmp_path, monkeypatch, keep_times):
    monkeypatch.setattr(fingerprints, "SETTLED_NS", 0)
    folder = save_bmps(tmp_path / "photos", 1)
    settle(folder)
    before = fingerprint(folder)
    assert before.startswith("folder-2:")
    file = folder / "class_0" / "0.bmp"
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    if keep_times:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint(folder) != before
    content[-1] ^= 1
    file.write_bytes(content)
    assert fingerprint(folder) == before


def test_a_second_start_reads_only_files_that_have_changed(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(fingerprints, "SETTLED_NS", 0)
    folder = save_bmps(tmp_path / "photos", 1)
    settle(folder)
    read = []
    digest = fingerprints._digest
    monkeypatch.setattr(fingerprints, "_digest", lambda root, name: read.append(name) or digest(root, name))
    before = fingerprint(folder)
    assert len(read) == 10
    assert fingerprint(folder) == before and len(read) == 10
    (folder / "class_1" / "1.bmp").touch()
    assert fingerprint(folder) == before and read[10:] == ["class_1/1.bmp"]
    (folder / "class_1" / "3.bmp").unlink()
    assert fingerprint(folder) != before and len(read) == 11
    # A damaged index costs time, not correctness.
    for index in cache.glob("contents-*.npz"):
        index.write_bytes(b"damaged")
    (folder / "class_1" / "3.bmp").write_bytes(save_bmps(tmp_path / "again", 1).joinpath("class_1/3.bmp").read_bytes())
    assert fingerprint(folder) == before and len(read) == 21


def test_a_file_that_was_just_written_is_read_again(tmp_path, cache):
    folder = save_bmps(tmp_path / "photos", 1)
    fingerprint(folder)
    (index,) = cache.glob("contents-*.npz")
    with np.load(index) as arrays:
        assert len(arrays["facts"]) == 0


def test_the_fingerprint_of_arrays_keeps_its_form(tmp_path):
    import hashlib

    np.savez(tmp_path / "a.npz", images=np.zeros((3, 8, 8, 1), np.uint8))
    expected = hashlib.blake2b((tmp_path / "a.npz").read_bytes()).hexdigest()[:16]
    assert fingerprint(tmp_path / "a.npz") == f"npz:{expected}"


@pytest.mark.parametrize("masks", [False, True])
def test_the_fingerprint_of_a_voc_kit_follows_images_and_annotations(tmp_path, masks):
    names = {"ImageSets/Main/train.txt": b"a\n", "ImageSets/Segmentation/train.txt": b"a\n", "JPEGImages/a.jpg": b"xy"}
    names |= {"SegmentationClass/a.png": b"mask", "Annotations/a.xml": OBJECT.format("cat", 0, 1, 1, 9, 9).encode()}
    for name, content in names.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    data = AnnotatedData(name=str(tmp_path))
    seen = {VocSource(tmp_path).fingerprint(data, masks)}
    for name in ("JPEGImages/a.jpg", "SegmentationClass/a.png" if masks else "Annotations/a.xml"):
        (tmp_path / name).write_bytes(names[name][::-1])
        seen.add(VocSource(tmp_path).fingerprint(data, masks))
    assert len(seen) == 3


@pytest.fixture
def starts(tmp_path):
    """A function that starts or resumes a run on a folder, reads its data, and returns data set and log."""
    photos = save_bmps(tmp_path / "photos", 1)
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE.format(data=photos))
    recipe = load_recipe(tmp_path / "tiny.toml", {"data.size": 20})
    folder = create_run(tmp_path / "runs", "run", to_toml(recipe), {})

    def start(process=None, strategy=None):
        console, events = Console(folder.log), EventWriter(folder.events_file)
        session = Session(folder, recipe, events, console, Stop(folder.stop_file))
        session.process = process or session.process
        try:
            return prepare_data(session, strategy)
        finally:
            console.close()
            events.close()

    start.folder, start.photos = folder, photos
    return start


def rewrite_facts(folder, change):
    facts = folder.facts()
    change(facts)
    folder.facts_file.write_text(json.dumps(facts))


def test_the_range_of_values_is_fixed_at_the_first_start(starts):
    for number, file in enumerate(sorted(starts.photos.rglob("*.bmp"))):
        np.save(file.with_suffix(".npy"), np.random.default_rng(number).integers(0, 4096, (8, 8, 3), np.uint16))
        file.unlink()
    first = starts()
    assert starts.folder.facts()["value_range"]["low"] == list(first.values.low)
    moved = {"percentiles": [0.1, 99.9], "low": [5.0, 6.0, 7.0], "high": [3000.0, 3001.0, 3002.0]}
    rewrite_facts(starts.folder, lambda facts: facts.update(value_range=moved))
    again = starts()
    assert (again.values.low, again.values.high) == ((5.0, 6.0, 7.0), (3000.0, 3001.0, 3002.0))
    # A run of an earlier version scaled such values to 8 bits.
    rewrite_facts(starts.folder, lambda facts: facts.pop("value_range"))
    with pytest.raises(DataError, match=r"scaled the values of its images to 8 bits.* Start a new run"):
        starts()


def test_a_resumed_run_notices_an_edit_to_the_same_size(starts):
    starts()
    file = starts.photos / "class_1" / "1.bmp"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DataError, match=r"the data have changed since this run began \(fingerprint: was folder-2:"):
        starts()


def test_an_old_run_resumes_by_the_old_rule_and_then_by_content(starts):
    dataset = starts()
    old = find_source(Data(name=str(starts.photos))).old_fingerprint()
    assert old.startswith("folder:")
    rewrite_facts(starts.folder, lambda facts: facts["data"].update(fingerprint=old))
    starts()
    assert starts.folder.log.read_text().count("compared by names and sizes, and by content from now on") == 1
    assert starts.folder.facts()["data"]["fingerprint"] == dataset.fingerprint
    starts()
    assert starts.folder.log.read_text().count("compared by names and sizes") == 1
    rewrite_facts(starts.folder, lambda facts: facts["data"].update(fingerprint="folder:0123456789abcdef"))
    with pytest.raises(DataError, match=f"was folder:0123456789abcdef, is {old}"):
        starts()


def test_an_old_run_says_once_that_its_images_are_decoded_in_another_way(starts):
    said = "decoded images in another way: from here on its images differ by a few levels"
    starts()
    rewrite_facts(starts.folder, lambda facts: facts.pop("decoder"))
    starts()
    assert said not in starts.folder.log.read_text(), "BMP files are read as ever"
    for file in starts.photos.rglob("*.bmp"):
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()
    rewrite_facts(starts.folder, lambda facts: (facts.pop("decoder"), facts.pop("data")))
    starts()
    starts()
    assert said not in starts.folder.log.read_text(), "one decoder from the first start on"
    rewrite_facts(starts.folder, lambda facts: facts.pop("decoder"))
    starts()
    starts()
    assert starts.folder.log.read_text().count(said) == 1
    assert starts.folder.facts()["decoder"] == decoding.DECODER


def test_where_images_are_kept_is_chosen_once(starts, monkeypatch):
    monkeypatch.setattr(stores, "MEMORY_BYTES", 0)
    first = starts()
    assert isinstance(first.train.store, stores.DiskStore)
    assert starts.folder.facts()["kept_images"] == {"train": "disk"}
    # Now the disk is full, and memory is large.
    monkeypatch.setattr(stores, "DISK_SHARE", 0)
    assert isinstance(starts().train.store, stores.DiskStore)
    monkeypatch.setattr(stores, "MEMORY_BYTES", 10**9)
    assert isinstance(starts().train.store, stores.DiskStore)
    # A run of an earlier version chooses as before, and from then on keeps to it.
    rewrite_facts(starts.folder, lambda facts: facts.pop("kept_images"))
    assert isinstance(starts().train.store, np.ndarray)
    assert starts.folder.facts()["kept_images"] == {"train": "memory"}
    monkeypatch.setattr(stores, "MEMORY_BYTES", 0)
    assert isinstance(starts().train.store, np.ndarray)


@pytest.mark.parametrize("chief", [{"train": "disk", "validation": "none", "test": "memory"}, {"train": "none"}, {}])
def test_every_process_keeps_images_where_the_chief_does(monkeypatch, chief):
    sent = []

    def broadcast(strategy, process, variables, number):
        sent.append(number)
        return sent[0]

    monkeypatch.setattr(setup, "broadcast_from_chief", broadcast)
    assert setup._chosen_by_chief(None, TrainingProcess(0, 2), chief) == chief
    assert setup._chosen_by_chief(None, TrainingProcess(1, 2), {"train": "memory", "test": "disk"}) == chief


def test_a_process_that_chose_otherwise_than_the_chief_reads_the_data_again(starts, monkeypatch):
    monkeypatch.setattr(setup, "_chosen_by_chief", lambda strategy, process, kept: {"train": "none"})
    dataset = starts(TrainingProcess(1, 2), object())
    assert isinstance(dataset.train.store, FolderImages)
    assert starts.folder.facts()["kept_images"] == {"train": "none"}


def test_the_place_of_every_split_is_recorded(tmp_path):
    for split in ("train", "test"):
        save_bmps(tmp_path / "photos" / split, len(split))
    places = {"train": "disk"}
    dataset = load(Data(name=str(tmp_path / "photos"), size=20, validation=0), kept=places)
    assert places == {"train": "disk", "test": "memory"}
    assert isinstance(dataset.train.store, stores.DiskStore) and isinstance(dataset.test.store, np.ndarray)
    assert list(dataset.test.labels) == [0] * 5 + [1] * 5
