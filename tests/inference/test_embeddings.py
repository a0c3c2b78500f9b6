"""Embeddings of image files, similar images, and their projections."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.command_line import command
from support.tiny import upright_images
from support.whole_runs import wait_for

from rotnet_keras.cli.main import app
from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.files import digest
from rotnet_keras.inference.embeddings import Features, embed, load_features
from rotnet_keras.inference.projections import group_by_folder
from rotnet_keras.inference.similarity import find_similar, nearest


@pytest.fixture
def pictures(tmp_path):
    """Twelve images of four brightnesses, and a file that cannot be read."""
    images, labels = upright_images(12, seed=4)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(pixels).save(folder / f"{label}-{number}.png")
    (folder / "text.png").write_text("no picture")
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_features_are_those_of_the_backbone(finished, pictures, suffix):
    import keras

    run, file = finished[1], pictures.parent / f"features.{suffix}"
    result = invoke("embed", run.path, pictures, "--to", file, "--tap", "conv2")
    assert result.exit_code == 0, result.output
    assert "12 images" in result.output and "text.png (" in result.output
    found = load_features(file)
    assert [name.split("/")[-1] for name in found.files] == sorted(path.name for path in pictures.iterdir())[:-1]
    backbone = keras.models.load_model(run.backbone)
    trunk = keras.Model(backbone.input, backbone.get_layer("conv2").output)
    pixels = np.stack([np.asarray(Image.open(name)) for name in found.files])
    expected = np.asarray(trunk(pixels.astype("float32"))).mean(axis=(1, 2))
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-6)
    assert found.tap == "conv2" and found.backbone == str(run.backbone)


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_killed_command_goes_on_where_it_was(pictures, suffix):
    folder = pictures.parent
    sources = sorted(pictures.glob("?-*.png"))
    for number in range(500):
        (pictures / f"copy-{number:03d}.png").hardlink_to(sources[number % 12])
    words = ("embed", "compact4_cifar10", pictures, "--tap", "conv2", "--to")
    assert invoke(*words, folder / f"whole.{suffix}").exit_code == 0
    file, partial = folder / f"features.{suffix}", folder / f"features.{suffix}.partial"
    process = subprocess.Popen(command(*words, file), stdout=subprocess.DEVNULL)
    wait_for(lambda: partial.exists() and partial.read_bytes().count(b"\n") > 1, "the first results")
    process.kill()
    process.wait(60)
    done = partial.read_bytes().count(b"\n") - 1
    assert 0 < done < 513 and not file.exists()
    other = invoke("embed", "compact4_cifar10", pictures, "--tap", "conv1", "--to", file)
    assert isinstance(other.exception, RecipeError) and "tap 'conv2' instead of 'conv1'" in str(other.exception)
    again = invoke(*words, file)
    assert again.exit_code == 0 and f"Going on with {partial}: {done:,} of 513 images are done." in again.output
    assert "text.png (" in again.output
    found, whole = load_features(file), load_features(folder / f"whole.{suffix}")
    assert found.files == whole.files and len(whole.files) == 512 and not partial.exists()
    # A batch of another size may sum in another order.
    np.testing.assert_allclose(found.values, whole.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_features_are_averaged_over_mirror_images_and_so_are_those_of_queries(finished, pictures, suffix):
    run, file = finished[1], pictures.parent / f"features.{suffix}"
    (pictures / "text.png").unlink()
    result = invoke("embed", run.path, pictures, "--to", file, "--tap", "conv2", "--average", "mirror")
    assert result.exit_code == 0, result.output
    plain, both = embed(run.backbone, "conv2", sorted(pictures.iterdir()))[0], load_features(file)
    mirrored = pictures.parent / "mirrored"
    mirrored.mkdir()
    for path in pictures.iterdir():
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored / path.name)
    others = embed(run.backbone, "conv2", sorted(mirrored.iterdir()))[0]
    assert both.average == "mirror" and plain.average == "none"
    np.testing.assert_allclose(both.values, (plain.values + others.values) / 2, rtol=1e-4, atol=1e-5)
    query = sorted(mirrored.iterdir())[0]
    (matches,) = find_similar(both, [query], 1)
    assert Path(matches[0].file).name == query.name and matches[0].similarity == 1.0


def test_similar_images_are_found_and_shown(finished, pictures):
    file, page = pictures.parent / "features.npz", pictures.parent / "alike.html"
    assert invoke("embed", finished[1].backbone, pictures, "--to", file).exit_code == 0
    asked = sorted(pictures.iterdir())[0]
    (other,) = pictures.parent.glob("features.npz")
    new = pictures.parent / "new.png"
    Image.open(asked).save(new)
    result = invoke("alike", other, asked, new, "--top", 3, "--page", page, "--json")
    assert result.exit_code == 0, result.output
    of_known, of_new = json.loads(result.output)
    assert len(of_known["alike"]) == 3 and str(asked) not in [one["file"] for one in of_known["alike"]]
    cosines = [one["similarity"] for one in of_known["alike"]]
    assert cosines == sorted(cosines, reverse=True) and cosines[0] <= 1
    assert of_new["alike"][0] == {
        "file": str(asked),
        "similarity": pytest.approx(1, abs=1e-3),
        "path": str(asked),
    }
    content = page.read_text()
    assert content.count("data:image/jpeg;base64,/9j/") == 8 and "http" not in content.replace("http-equiv", "")
    told = invoke("alike", file, asked, "--top", 2).output
    assert told.startswith(f"Most similar to {asked}:") and len(told.splitlines()) == 4


def test_an_image_that_was_modified_after_its_embedding_is_embedded_anew(finished, pictures):
    file = pictures.parent / "features.npz"
    assert invoke("embed", finished[1].backbone, pictures, "--to", file).exit_code == 0
    asked, other = sorted(pictures.glob("?-*.png"))[:2]
    new = pictures.parent / "new.png"
    shutil.copy(other, new)
    shutil.copyfile(other, asked)
    written = file.stat().st_mtime_ns
    found = {}
    for name, modified in (("older", written - 1), ("newer", written + 1)):
        os.utime(asked, ns=(modified, modified))
        (found[name],) = find_similar(load_features(file), [asked], 3)
    (of_other,) = find_similar(load_features(file), [new], 12)
    # As `new`, which has the same pixels, but for the image itself.
    assert found["newer"] == [match for match in of_other if match.path != str(asked)][:3]
    assert found["newer"][0].path == str(other) and found["older"] != found["newer"]


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_an_image_is_not_similar_to_itself_by_another_path(finished, pictures, monkeypatch, suffix):
    monkeypatch.chdir(pictures.parent)
    (pictures / "text.png").unlink()
    names = sorted(path.name for path in pictures.iterdir())
    link, elsewhere = pictures / "0-link.png", pictures.parent / "elsewhere"
    link.symlink_to(names[1])
    elsewhere.mkdir()
    result = invoke("embed", finished[1].backbone, "pictures", f"pictures/{names[2]}", "--to", f"features.{suffix}")
    assert result.exit_code == 0 and "Wrote" in result.output and ": 12 images" in result.output
    assert "2 of 14 paths name files that are listed already: " in result.stderr
    # The features are named as typed, and found from another folder.
    assert load_features(pictures.parent / f"features.{suffix}").files == [f"pictures/{name}" for name in names]
    monkeypatch.chdir(elsewhere)
    result = invoke("alike", f"../features.{suffix}", link, "--top", 11, "--page", "page.html", "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    assert {one["file"] for one in found["alike"]} == {f"pictures/{name}" for name in names} - {f"pictures/{names[1]}"}
    assert {one["path"] for one in found["alike"]} == {str(pictures / name) for name in names if name != names[1]}
    assert (elsewhere / "page.html").read_text().count("data:image/jpeg;base64,/9j/") == 12


@pytest.mark.parametrize(("count", "folders", "words"), [
    (20, 3, "t-SNE of 20, coloured by 3 folders"),
    (80, 30, "t-SNE of 60 of the 80, coloured by 21 folders"),
    (5, 1, "t-SNE of 5."),
])  # fmt: skip
def test_features_are_projected_to_the_plane(tmp_path, monkeypatch, count, folders, words):
    monkeypatch.setattr("rotnet_keras.inference.projections.MOST", 60)
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(count, 8)) + 4 * np.arange(count)[:, None] % folders).astype(np.float32)
    values[1] = values[0]
    names = [f"/data/{'train' if n % 2 else 'test'}/_a$^{n % folders}/{n}.png" for n in range(count)]
    Features("backbone.keras", "conv2", names, values).save(tmp_path / "features.npz")
    result = invoke("plot", tmp_path / "features.npz", "--to", tmp_path / "plot.png")
    assert result.exit_code == 0, result.output
    assert words in result.output
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width > 1000 and len(set(np.asarray(image.convert("RGB")).reshape(-1, 3).sum(1))) > 20


def test_the_smallest_folders_share_a_colour():
    files = [f"/data/{'train' if n % 2 else 'test'}/{n % (n // 25 + 1)}/{n}.png" for n in range(600)]
    groups = group_by_folder(files)
    assert len(groups) == 21 and list(groups)[-1] == "4 other folders"
    assert np.sort(np.concatenate(list(groups.values()))).tolist() == list(range(600))
    assert min(len(rows) for rows in list(groups.values())[:-1]) >= 600 // 24 - 25
    assert all(files[row].split("/")[-2] == "0" for row in groups["0"])


def test_nearest_neighbours_by_cosine():
    class Known:
        files = ("a", "b", "c")
        values = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])

    rows, similarity = nearest(Known, np.array([[0.0, 1.0]]), 2)
    assert rows.tolist() == [[1, 2]] and similarity[0] == pytest.approx([1, np.sqrt(0.5)])


def test_mistakes_are_explained(finished, pictures):
    file = pictures.parent / "features.npz"
    for arguments, kind, message in (
        (["embed", finished[1].path, pictures, "--to", "a.txt"], RecipeError, ".npz or .parquet"),
        (["embed", finished[1].path, pictures, "--to", file, "--tap", "conv9"], DataError, "no layer called conv9"),
        (["embed", finished[1].path, pictures / "text.png", "--to", file], DataError, "none of the images can be read"),
        (
            ["alike", pictures / "text.png", pictures / "0-0.png"],
            DataError,
            "expected a file of features, which ends in .npz or .parquet",
        ),
        (["embed", finished[1].path, pictures, "--to", "none/a.npz"], RecipeError, "the folder none does not exist"),
        (["plot", pictures / "text.png", "--to", "a.jpg"], RecipeError, ".png, .svg or .pdf"),
        (
            ["plot", pictures / "none.npz", "--to", file.with_suffix(".png")],
            DataError,
            "no file",
        ),
    ):
        error = invoke(*arguments).exception
        assert isinstance(error, kind) and message in str(error), error
    assert not file.exists()
    Features("backbone.keras", "conv2", ["a", "b", "c", "d"], np.ones((4, 2), np.float32)).save(file)
    error = invoke("plot", file, "--to", file.with_suffix(".png")).exception
    assert isinstance(error, DataError) and "images that differ" in str(error)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_features_are_not_compared_with_those_of_another_model(tmp_path, suffix):
    backbone, file = tmp_path / "backbone.keras", tmp_path / f"features.{suffix}"
    backbone.write_bytes(b"one model")
    images = [tmp_path / f"{name}.png" for name in "ab"]
    for image in images:
        Image.new("RGB", (8, 8)).save(image)
    values, paths = np.eye(2, dtype=np.float32), list(map(str, images))
    Features(str(backbone), "conv2", ["a.png", "b.png"], values, paths, digest=digest(backbone)).save(file)
    backbone.write_bytes(b"another one")
    # What is among the features needs no model.
    assert invoke("alike", file, images[0], "--json").exit_code == 0
    new = tmp_path / "new.png"
    Image.new("RGB", (8, 8)).save(new)
    error = invoke("alike", file, new).exception
    assert isinstance(error, DataError) and "has changed since the features were computed" in str(error)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
@pytest.mark.parametrize("words", [["alike", "FILE", "a.png"], ["plot", "FILE", "--to", "plot.png"],
                                   ["select", "FILE", "--count", 1, "--to", "chosen.csv"]])  # fmt: skip
def test_damaged_features_are_one_error(tmp_path, monkeypatch, words, suffix):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    values = np.eye(3, dtype=np.float32)
    values[1, 1] = np.nan
    Features("backbone.keras", "conv2", ["a.png", "b.png", "c.png"], values).save(Path(f"nan.{suffix}"))
    Path(f"other.{suffix}").write_text("something else")
    arrays = {"features": np.eye(3, dtype=np.float32), "files": ["a.png"], "backbone": "b.keras", "tap": "conv2"}
    np.savez("fewer.npz", **arrays)
    for name, message in (
        (f"nan.{suffix}", "the features of 1 images are not all finite"),
        (f"other.{suffix}", "not a file that `rotnet-keras embed` wrote"),
        ("fewer.npz", "1 files, and features of shape (3, 3)"),
    ):
        error = invoke(*(name if word == "FILE" else word for word in words)).exception
        assert isinstance(error, DataError) and message in str(error), error
    assert not {"plot.png", "chosen.csv"} & {path.name for path in tmp_path.iterdir()}
