"""Images that are the same but for small changes: how pixels agree, groups, and the command `duplicates`."""

import csv
import os
import shutil

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from support.command_line import invoke

from rotnet_keras.inference import duplicates
from rotnet_keras.inference.alignment import agreement
from rotnet_keras.inference.duplicates import Duplicate, equal_files, group_duplicates, near_pairs


def scene(seed, width=96, height=80):
    """A smooth image that is unlike those of other seeds and unlike its own rotations."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def small(image):
    return np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BILINEAR))[None]


CHANGES = {
    "half": lambda image: image.resize((48, 40)),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "crop": lambda image: image.crop((5, 3, 5 + 82, 3 + 68)),
    "mirrored": ImageOps.mirror,
    "upside down": lambda image: image.rotate(180),
    "rotated": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "mirrored and rotated": lambda image: ImageOps.mirror(image).transpose(Image.Transpose.ROTATE_270),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_agree_and_others_do_not(change):
    images = [scene(seed) for seed in range(8)]
    first = np.concatenate([small(image) for image in images])
    second = np.concatenate([small(CHANGES[change](image)) for image in images])
    assert agreement(first, second).min() > 0.93
    assert agreement(second, first).min() > 0.93
    assert agreement(first, np.roll(second, 1, axis=0)).max() < 0.85


def test_images_of_one_colour_do_not_agree():
    flat = np.full((1, 32, 32), 7, np.uint8)
    assert agreement(flat, flat)[0] == 0


def test_pairs_are_found_by_features_and_decided_by_pixels():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    greys = np.concatenate([small(scene(seed)) for seed in range(60)])
    # 50 is a copy of 3; 51 has the features of 4 and other pixels; 52 has the pixels of 5 and other features.
    vectors[50], greys[50] = vectors[3] + 0.01, greys[3]
    vectors[51] = vectors[4]
    vectors[52], greys[52] = -vectors[5], greys[5]
    pairs = near_pairs(vectors, greys)
    assert [(first, second) for first, second, _ in pairs] == [(3, 50)] and pairs[0][2] == pytest.approx(1, abs=1e-5)
    across = near_pairs(vectors, greys, np.arange(50, 60), np.arange(50))
    assert [(first, second) for first, second, _ in across] == [(3, 50)]
    assert near_pairs(vectors, greys, np.arange(51, 60), np.arange(50)) == []


def test_pixels_are_compared_from_a_cosine_of_a_half_on(monkeypatch):
    angles = np.radians([0, 62, -58])
    monkeypatch.setattr(duplicates, "_whitened", lambda vectors: vectors)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    # Of three images with equal pixels the first is nearer than that to the last alone.
    pairs = near_pairs(vectors, np.repeat(small(scene(0)), 3, axis=0))
    assert [(first, second) for first, second, _ in pairs] == [(0, 2)]


def test_pairs_join_to_groups():
    files = list("abcdefg")
    groups = group_duplicates(files, [[1, 4]], [(4, 5, 0.95), (0, 2, 0.912345)])
    assert groups == [
        [Duplicate("b", "", 1.0), Duplicate("e", "exact", 1.0), Duplicate("f", "near", 0.95)],
        [Duplicate("a", "", 0.912), Duplicate("c", "near", 0.912)],
    ]
    across = group_duplicates(files, [[1, 2]], [(0, 5, 0.95)], train=3)
    assert across == [[Duplicate("a", "", 0.95, "train"), Duplicate("f", "near", 0.95, "test")]]


def test_equal_files_are_known_by_content(tmp_path):
    for name, content in (("a", b"xx"), ("b", b"xy"), ("c", b"xx"), ("d", b"x")):
        (tmp_path / name).write_bytes(content)
    files = [tmp_path / name for name in "abcd"]
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    assert equal_files([*files, tmp_path / "none", tmp_path / "pipe", tmp_path / "empty"]) == [[0, 2]]


@pytest.fixture
def photos(tmp_path):
    """Six images in a folder, with copies of three of them and a file that cannot be read."""
    folder = tmp_path / "photos"
    (folder / "copies").mkdir(parents=True)
    for seed in range(6):
        scene(seed).save(folder / f"{seed}.png")
    shutil.copyfile(folder / "0.png", folder / "copies" / "same.png")
    CHANGES["rotated"](scene(1)).save(folder / "copies" / "rotated.jpg", quality=90)
    CHANGES["crop"](scene(2)).save(folder / "copies" / "crop.png")
    (folder / "text.png").write_text("no image")
    return folder


def test_the_command_lists_groups_and_shows_them(finished, photos, tmp_path):
    page = tmp_path / "page.html"
    result = invoke("duplicates", "photos", "--model", finished[1].path, "--page", page, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with (tmp_path / "duplicates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["file"], row["kind"]) for row in rows] == [
        ("1", "photos/0.png", ""),
        ("1", "photos/copies/same.png", "exact"),
        *[(row["group"], row["file"], row["kind"]) for row in rows[2:]],
    ]
    named = {tuple(sorted(r["file"] for r in rows if r["group"] == number)) for number in ("2", "3")}
    assert named == {("photos/1.png", "photos/copies/rotated.jpg"), ("photos/2.png", "photos/copies/crop.png")}
    assert "10 images: 3 groups of duplicates with 6 images, 1 groups with equal files." in result.stdout
    assert "Skipped 1 files: photos/text.png" in result.stdout
    assert page.read_text().count("data:image/jpeg") == 6
    assert not list(tmp_path.glob("*.partial"))


def test_leaks_between_two_folders(finished, photos, tmp_path):
    scene(1).save(photos / "again.png")
    arguments = ["duplicates", "--between", "photos", "photos/copies", "--model", finished[1].backbone]
    moved = tmp_path / "test"
    (photos / "copies").rename(moved)
    arguments[3] = "test"
    result = invoke(*arguments, "--to", "leaks.csv", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with (tmp_path / "leaks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["group"] for row in rows} == {"1", "2", "3"}
    assert {(row["file"], row["part"]) for row in rows if row["part"] == "test"} == {
        (f"test/{name}", "test") for name in ("same.png", "rotated.jpg", "crop.png")
    }


def test_a_stopped_search_goes_on(finished, photos, tmp_path, monkeypatch):
    from rotnet_keras.inference import loading

    monkeypatch.setattr(loading, "BATCH", 4)
    read, load = [], duplicates.WholeImages.load

    def interrupted(self, file):
        if len(read) == 6:
            raise KeyboardInterrupt
        read.append(file)
        return load(self, file)

    monkeypatch.setattr(duplicates.WholeImages, "load", interrupted)
    arguments = ["duplicates", "photos", "--model", finished[1].backbone]
    result = invoke(*arguments, cwd=tmp_path)
    assert result.returncode == 130 and "The same command goes on" in result.stdout
    assert (tmp_path / "duplicates.csv.partial").exists() and not (tmp_path / "duplicates.csv").exists()
    read.clear()
    monkeypatch.setattr(duplicates.WholeImages, "load", lambda self, file: read.append(file) or load(self, file))
    result = invoke(*arguments, cwd=tmp_path)
    # The equal file is not looked at, and four are done.
    assert result.returncode == 0 and "4 of 9 images are done" in result.stdout and len(read) == 5
    assert "3 groups of duplicates" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "expected IMAGES, or two folders with --between"),
        (["photos", "--between", "photos", "photos/copies"], 2, "expected IMAGES, or two folders"),
        (["photos", "--to", "a.txt"], 2, "--to: expected a name that ends in"),
        (["photos/text.png"], 3, "none of the images can be read"),
        (["nothing"], 3, "no file or folder nothing"),
    ],
)
def test_mistakes_leave_nothing_behind(finished, photos, tmp_path, arguments, code, message):
    result = invoke("duplicates", *arguments, "--model", finished[1].backbone, cwd=tmp_path)
    assert result.returncode == code and message in result.stderr, result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}
