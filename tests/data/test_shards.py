"""Tar files in the convention of WebDataset: what they hold, what is left out of them, and what is damaged."""

import json
import tarfile
import threading
import unicodedata

import numpy as np
import pytest
from support.command_line import invoke
from support.shards import samples, shade, write_shard
from support.tiny import upright_images

from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data import fingerprints
from rotnet_keras.data.audit import audit_images, understand
from rotnet_keras.data.batches import Replicas, training_batches
from rotnet_keras.data.datasets import load
from rotnet_keras.data.folders import FolderImages
from rotnet_keras.data.shards import members, source
from rotnet_keras.data.sizes import count_training_images
from rotnet_keras.data.sources import find_source
from rotnet_keras.data.stores import DiskStore
from rotnet_keras.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shards(tmp_path):
    """Three shards of 20 labelled images for training, and one of 10 for validation; and all images and labels."""
    images, labels = upright_images(70, channels=3)
    for number, start in enumerate(range(0, 70, 20)):
        name = f"set-{'val' if start == 60 else 'train'}-{number:03d}.tar"
        part = slice(start, min(start + 20, 70))
        write_shard(tmp_path / "shards" / name, samples(images[part], labels[part], start))
    return tmp_path / "shards", images, labels


def data_of(folder, pattern="*.tar", **options):
    return Data(name=f"{folder}/{pattern}", **{"size": 16, "validation": 0.0, "cache": "none", **options})


def single(tmp_path, *parts):
    """A shard of these members, and what is said about it."""
    write_shard(tmp_path / "one" / "a.tar", parts)
    data = data_of(tmp_path / "one", size=8)
    return load(data), dict(understand(data))


@pytest.mark.parametrize("kept", ["none", "memory", "disk"])
def test_images_labels_and_splits_are_those_of_the_shards(shards, kept):
    folder, images, labels = shards
    found = load(data_of(folder, cache=kept))
    np.testing.assert_array_equal(found.train.images(slice(0, 60)), images[:60])
    np.testing.assert_array_equal(found.validation.images(slice(0, 10)), images[60:])
    np.testing.assert_array_equal(found.train.labels, labels[:60])
    assert found.class_names == ["0", "1", "2", "3"] and not found.resampled


@pytest.mark.parametrize(("kept", "store"), [("none", FolderImages), ("disk", DiskStore), ("memory", np.ndarray)])
def test_images_are_kept_where_an_earlier_start_chose(shards, kept, store):
    places = {"train": kept}
    found = load(data_of(shards[0], cache="auto"), kept=places)
    assert type(found.train.store) is store and isinstance(found.validation.store, np.ndarray)
    assert places == {"train": kept, "validation": "memory"}


def test_a_dry_run_says_how_shards_are_understood_and_writes_nothing(shards, tmp_path):
    recipe = tmp_path / "shards.toml"
    recipe.write_text('kind = "pretrain"\ntitle = "s"\n[data]\nname = "shards/set-{train,val}-*.tar"\nsize = 16\n')
    result = invoke("run", recipe, "backbone.name=compact", "train.steps=1", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "WebDataset shards, 4 tar files" in said
    assert "60 train (3 tar files), 10 validation (1 tar file)" in said and "4, by .cls: 0, 1, 2, 3" in said
    assert not (tmp_path / "runs").exists()
    assert count_training_images(data_of(tmp_path / "shards", validation=0.1)) == 54
    audit = audit_images(str(tmp_path / "shards" / "*.tar"))
    assert audit.images == {"train": 60, "validation": 10} and audit.types == {"png": 70}
    assert sum(audit.classes.values()) == 60 and audit.duplicates == []


def test_steps_are_a_function_of_seed_and_step_and_each_process_reads_its_part(shards):
    split = load(data_of(shards[0])).train
    options = {"batch": 7, "seed": 3, "labelled": True}
    augment = Augment(crop=12, flip=True)
    whole = list(training_batches(split, augment, first=0, last=12, **options))
    # The same data, opened again, from a later step on.
    again = load(data_of(shards[0])).train
    for (one, _), (other, _) in zip(
        whole[5:], training_batches(again, augment, first=5, last=12, **options), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    parts = [
        list(training_batches(again, augment, first=0, last=1, replicas=Replicas(range(here, here + 1), 2), **options))
        for here in (0, 1)
    ]
    images = whole[0][0].numpy()
    for here, ((part, labels, _),) in enumerate(parts):
        np.testing.assert_array_equal(part, images[here::2])
        np.testing.assert_array_equal(labels, whole[0][1][here::2])


def test_several_shards_are_read_at_once(shards, monkeypatch):
    both = threading.Barrier(2, timeout=20)
    read = members.read_members
    monkeypatch.setattr(source, "read_members", lambda path: (both.wait(), read(path))[1])
    assert len(find_source(data_of(shards[0])).splits["train"]) == 60


def test_the_fingerprint_is_of_the_content_and_an_unchanged_shard_is_read_once(shards, monkeypatch):
    for module in (fingerprints, source):
        monkeypatch.setattr(module, "SETTLED_NS", 0)
    folder = shards[0]
    before = find_source(data_of(folder)).fingerprint()
    read = []
    monkeypatch.setattr(source, "read_members", lambda path: (read.append(path.name), members.read_members(path))[1])
    assert find_source(data_of(folder)).fingerprint() == before and read == []
    write_shard(folder / "set-train-001.tar", [("a.png", shade(9)), ("a.cls", b"1")])
    assert find_source(data_of(folder)).fingerprint() != before and read == ["set-train-001.tar"]


def test_labels_are_text_numbers_or_keys_of_json_and_captions_are_none(tmp_path):
    def four(label):
        """Four images, and members that a function makes of their numbers."""
        return single(tmp_path, *(part for n in range(4) for part in ((f"{n}.png", shade(n)), *label(n))))

    def facts(n):
        return json.dumps({"other": 1, "label": f"kind {n % 2}"}).encode()

    found, said = four(lambda n: [(f"{n}.json", facts(n)), (f"{n}.txt", b"a text")])
    assert found.class_names == ["kind 0", "kind 1"] and found.train.labels.tolist() == [0, 1, 0, 1]
    assert said["classes"] == "2, by .json: kind 0, kind 1"
    found, said = four(lambda n: [(f"{n}.txt", b"caption %d" % n)])
    assert found.class_names == [] and said["classes"] == "none: the .txt members are captions, 4 different ones"
    found, said = four(lambda n: [(f"{n}.cls", b"-1" if n == 3 else b"%d\n" % (8 + 2 * n))])
    assert found.class_names == ["8", "10", "12"] and found.train.labels.tolist() == [0, 1, 2, -1]
    assert said["classes"] == "3, by .cls: 8, 10, 12; 1 images have none"
    found, said = four(lambda n: [])
    assert said["classes"] == "none: no label in members called .cls, .json, .txt"


def test_a_class_in_two_unicode_forms_is_one(tmp_path):
    spelled = [unicodedata.normalize(form, "caf\u00e9") for form in ("NFD", "NFC")]
    for name, labels in (("train-0", spelled), ("train-1", ["tea", *spelled[::-1]]), ("test-0", spelled[1:])):
        write_shard(tmp_path / "one" / f"{name}.tar", samples([np.full((8, 8), 9, np.uint8)] * len(labels), labels))
    found = load(data_of(tmp_path / "one", size=8))
    assert found.class_names == [spelled[0], "tea"]
    assert found.train.labels.tolist() == [0, 0, 1, 0, 0] and found.test.labels.tolist() == [0]


def test_what_is_left_out_is_said_and_nothing_is_written(tmp_path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(shade(1))
    strange = []
    for kind, name in (
        (tarfile.SYMTYPE, "link.png"), (tarfile.LNKTYPE, "hard.png"), (tarfile.FIFOTYPE, "pipe.png"),
        (tarfile.CHRTYPE, "device.png"), (tarfile.DIRTYPE, "folder"), (b"Z", "odd.png"),
    ):  # fmt: skip
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, str(outside)
        strange.append((member, b""))
    before = sorted(tmp_path.rglob("*"))
    shades = [("../../up.png", shade(2)), ("/abs/top.png", shade(3)), ("._x.png", b"?"), ("note", b"?")]
    several = [("c.png", shade(4)), ("c.seg.png", shade(5)), ("c.png", shade(6)), ("c.json", b"[" * 99)]
    found, said = single(tmp_path, *strange, *shades, ("b.txt", b"no image"), *several)
    assert [int(image[0, 0, 0]) for image in found.train.images(slice(None))] == [2, 3, 4]
    for sentence in (
        "2 members are links, which are not followed: link.png",
        "3 members are devices, pipes or of kinds that are not read: pipe.png",
        "2 samples have no image: note",
        "1 samples have several images, of which one is used: c (png, seg.png)",
        "1 members have the name of another one in their sample: c.png",
        "1 labels cannot be read: c.json",
        "hidden files and folders: 1",
    ):
        assert sentence in said["left out"], said["left out"]
    assert any("links" in note for note in found.notes)
    made = {path.relative_to(tmp_path).parts[0] for path in set(tmp_path.rglob("*")) - set(before)}
    assert made == {"one", "cache"}


def spoilt(path, how):
    content = bytearray(path.read_bytes())
    first = 512 + 512  # The header and the block of the first member's label.
    if how == "cut in a member":
        del content[first + 512 + 50 :]
    elif how == "no tar":
        content[:] = b"\x89PNG" + bytes(2000)
    elif how == "a header overwritten":
        content[first : first + 512] = b"x" * 512
    elif how == "a huge size":
        member = tarfile.TarInfo("a.png")
        member.size = 1 << 40
        content[first : first + 512] = member.tobuf(tarfile.GNU_FORMAT)
    elif how == "a negative size":
        member = tarfile.TarInfo("a.png")
        header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        header[124:136] = b"\xff" * 11 + b"\x00"
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        content[first : first + 512] = header
    elif how == "a huge long name":
        member = tarfile.TarInfo("././@LongLink")
        member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
        content[first : first + 512] = member.tobuf(tarfile.GNU_FORMAT)
    elif how == "empty":
        content.clear()
    path.write_bytes(content)


@pytest.mark.parametrize(
    "how",
    [
        *("cut in a member", "no tar", "a header overwritten", "a huge size"),
        *("a negative size", "a huge long name", "empty"),
    ],
)
def test_a_damaged_shard_ends_in_one_message_before_anything_starts(shards, tmp_path, how):
    spoilt(shards[0] / "set-train-001.tar", how)
    with pytest.raises(DataError, match=r"set-train-001\.tar: .*copy or download the shard again"):
        find_source(data_of(shards[0]))


def test_a_shard_without_its_end_is_read_with_a_word(shards):
    file = shards[0] / "set-train-002.tar"
    content = file.read_bytes().rstrip(b"\0")
    file.write_bytes(content + bytes(-len(content) % 512))
    said = dict(understand(data_of(shards[0])))
    assert "1 shards lack the mark of a tar file's end and may be cut off: set-train-002.tar" in said["left out"]


def test_damaged_images_are_skipped_with_their_shard_and_name(tmp_path):
    found, _ = single(tmp_path, ("a.png", shade(1)), ("b.png", b"no image"), ("c.png", b""), ("d.png", shade(4)))
    assert len(found.train) == 2
    assert "a.tar: b.png (it is not an image" in found.notes[0] and "a.tar: c.png (it is empty)" in found.notes[0]


def test_a_shard_that_changes_during_training_gives_black_images_with_a_word(shards):
    found = load(data_of(shards[0]))
    write_shard(shards[0] / "set-train-000.tar", [("a.cls", b"1" * 600), ("a.png", shade(9))])
    assert not found.train.images(np.array([0, 19])).any()
    assert "set-train-000.tar: 000000.png cannot be read and is replaced by a black image" in found.notes[-2]


def test_names_with_numbers_in_braces_and_splits_by_patterns(shards):
    folder = shards[0]
    found = find_source(data_of(folder, "set-train-{000..001}.tar"))
    assert found.splits["train"].shards == ["set-train-000.tar", "set-train-001.tar"]
    splits = {"train": "*-{000,002}.tar", "test": "set-train-001.tar"}
    found = find_source(data_of(folder, splits=splits))
    assert {split: len(files) for split, files in found.splits.items()} == {"train": 40, "validation": 10, "test": 20}
    folder = folder.rename(folder.with_name("in [brackets]"))
    assert len(find_source(data_of(folder)).splits["train"]) == 60


@pytest.mark.parametrize(
    ("pattern", "splits", "message"),
    [
        ("none-*.tar", {}, "there is no file"),
        ("set-train-{000..009}.tar", {}, "there is no file .*set-train-003.tar"),
        ("set-{0..99999999}.tar", {}, "more than 1,000,000 shards"),
        ("*val*.tar", {}, "none of the 1 shards is for training"),
        ("*.tar", {"train": "*.tar", "test": "*002.tar"}, "train and test both have set-train-002.tar"),
        ("*.tar", {"test": "other*"}, "no shard is called 'other\\*'"),
        ("set-train-000.tar.gz", {}, "compressed as a whole"),
    ],
)
def test_names_that_lead_nowhere_end_in_one_message(shards, pattern, splits, message):
    (shards[0] / "set-train-000.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=message):
        find_source(data_of(shards[0], pattern, splits=splits))
    with pytest.raises(DataError, match=r"For images in tar files, set data.name=FOLDER/\*\.tar"):
        find_source(Data(name=str(shards[0])))
    with pytest.raises(DataError, match="download the tar files"):
        find_source(Data(name="pipe:curl https://example.org/a.tar"))
