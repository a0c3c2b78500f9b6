"""A look at one's own images, and the recipe that is written for them."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from support.command_line import invoke, run_cli
from support.tiny import upright_images

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.data.audit import audit_images
from rotnet_keras.errors import DataError
from rotnet_keras.planning.costs import PhaseCost, RunCost
from rotnet_keras.planning.proposal import propose_recipe


@pytest.fixture
def photos(tmp_path):
    """Pictures in two classes with everything that a folder may hold besides."""
    folder = tmp_path / "my photos"
    rng = np.random.default_rng(0)
    for n in range(12):
        path = folder / "train" / ("cats" if n % 3 else "dogs") / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (60, 80 + n, 3), np.uint8)).save(path)
    cats = folder / "train" / "cats"
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(rng.integers(0, 256, (50, 90, 3), np.uint8)).save(cats / "turned.jpg", exif=turned)
    (folder / "test" / "dogs").mkdir(parents=True)
    (folder / "test" / "dogs" / "again.jpg").write_bytes((cats / "1.jpg").read_bytes())
    (cats / "cut.jpg").write_bytes((cats / "2.jpg").read_bytes()[:-2000])
    (cats / "empty.png").touch()
    return folder


def test_a_folder_is_looked_through(photos):
    found = audit_images(str(photos))
    assert found.images == {"train": 13, "test": 1} and found.classes == {"cats": 9, "dogs": 4}
    assert found.short_sides == (50, 60, 60) and not found.square and found.channels == 3
    assert found.types == {"jpg": 15, "png": 1} and found.decoded == 16
    assert sorted(name for name, _ in found.unreadable) == ["train/cats/cut.jpg", "train/cats/empty.png"]
    assert found.duplicates == [["train/cats/1.jpg", "test/dogs/again.jpg"]] and found.in_several_splits == 1
    assert found.exif_rotated == 1
    printed = found.json_values()
    assert (printed["sides"], printed["kinds"], printed["shared"], printed["turned"]) == (
        found.short_sides,
        found.types,
        1,
        1,
    )


def test_arrays_are_looked_through(tmp_path):
    images, labels = upright_images(20, channels=5)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images[:4])
    found = audit_images(str(tmp_path / "a.npz"))
    assert found.images == {"train": 20, "test": 4} and found.short_sides == (16, 16, 16) and found.square
    assert found.channels == 5 and sum(found.classes.values()) == 20 and found.types == {"uint8": 24}


def test_a_recipe_is_written_that_fits(photos, monkeypatch):
    """An epoch takes 20 s, so three of them a minute."""
    part = PhaseCost("pretraining", 2, 24, 1e9, 12, 20.0)
    monkeypatch.setattr(
        "rotnet_keras.planning.proposal.costs_in_subprocess", lambda *_: [RunCost("a", None, 30.0, (part,), 0.0, 1e6)]
    )
    monkeypatch.chdir(photos.parent)
    (photos / "train" / "notes.txt").touch()
    result = invoke("init", "my photos", "--minutes", "2")
    assert result.returncode == 0, result.stderr
    printed = " ".join(result.stdout.split())
    rows = ("13 training, 1 test", "2, with 4 to 9 images", "train/cats/cut.jpg (", "1 of them in several splits")
    rows += ("layout a folder for each split, in it a folder for each class", "values 8 bits")
    rows += ("left out 1 files are no images: 1 .txt",)
    for words in rows:
        assert words in printed
    assert "Wrote my-photos.toml: 5 epochs in batches of 6 images" in printed
    recipe = load_recipe("my-photos.toml")
    assert recipe.data.name == str(photos) and recipe.data.size == 72
    assert recipe.augment.crop == 64 and recipe.augment.area == [0.35, 1.0]
    assert recipe.train.batch == 6 and recipe.train.epochs == 5 and recipe.probe[0].baselines == ["random", "pixels"]
    before = Path("my-photos.toml").read_text()
    again = invoke("init", "my photos")
    assert again.returncode == 2 and "--output FILE" in again.stderr
    assert Path("my-photos.toml").read_text() == before


def test_a_recipe_goes_on_from_the_pretrained_model_that_init_names(photos, monkeypatch):
    part = PhaseCost("pretraining", 2, 24, 1e9, 12, 20.0)
    monkeypatch.setattr(
        "rotnet_keras.planning.proposal.costs_in_subprocess", lambda *_: [RunCost("a", None, 30.0, (part,), 0.0, 1e6)]
    )
    folder = photos.parent
    said = invoke("init", "my photos", cwd=folder).stdout
    assert "To go on from its weights: rotnet-keras init 'my photos' --from airbench4_photos" in said
    result = invoke("init", "my photos", "--from", "airbench4_photos", "--output", "on.toml", cwd=folder)
    assert result.returncode == 0 and "--from" not in result.stdout, result.stderr
    recipe = load_recipe(folder / "on.toml")
    assert recipe.backbone is None and recipe.pretrained.run == "airbench4_photos"
    assert (recipe.data.size, recipe.augment.crop, recipe.optimizer.learning_rate) == (72, 64, 0.03)
    dry = invoke("run", "on.toml", "--dry-run", cwd=folder)
    assert dry.returncode == 0 and "goes on from the weights of airbench4_photos" in " ".join(dry.stdout.split())
    own = invoke("init", "my photos", "--from", "airbench4_potos", "--output", "b.toml", cwd=folder)
    assert own.returncode == 1 and "did you mean 'airbench4_photos'" in own.stderr
    np.savez(folder / "five.npz", images=np.zeros((12, 60, 60, 5), np.uint8))
    other = invoke("init", "five.npz", "--from", "airbench4_photos", cwd=folder)
    assert other.returncode == 3 and "the images have 5 channels, which cannot be converted to 3" in other.stderr
    assert "--from" not in invoke("init", "five.npz", cwd=folder).stdout


@pytest.mark.parametrize(("channels", "side", "minutes", "advice"), [
    # 12 images, an epoch of 1 s: 60 epochs a minute. The models were trained on 7160 * 64 and 4500 * 64 images.
    (3, 60, 2, "sees 1,080 images. airbench4_photos, which ships with the package, saw 458,240"),
    (3, 32, 2, "sees 1,080 images. compact4_cifar10, which ships with the package, saw 288,000"),
    (1, 60, 2, ""),
])  # fmt: skip
def test_a_short_training_is_compared_with_the_pretrained_model(tmp_path, monkeypatch, channels, side, minutes, advice):
    part = PhaseCost("pretraining", 2, 24, 1e9, 12, 1.0)
    monkeypatch.setattr(
        "rotnet_keras.planning.proposal.costs_in_subprocess", lambda *_: [RunCost("a", None, 31.0, (part,), 0.0, 1e6)]
    )
    np.savez(tmp_path / "a.npz", images=np.zeros((12, side, side, channels), np.uint8))
    found = propose_recipe(audit_images(str(tmp_path / "a.npz")), Path("a.toml"), minutes).advice
    # So few images would take more epochs than are ever proposed: no number of minutes is enough.
    assert advice in found and bool(found) == bool(advice) and "--minutes" not in found


def test_what_time_a_training_takes_that_sees_as_many_images(tmp_path, monkeypatch):
    part = PhaseCost("pretraining", 2, 24, 1e9, 12, 20.0)
    monkeypatch.setattr(
        "rotnet_keras.planning.proposal.costs_in_subprocess", lambda *_: [RunCost("a", None, 80.0, (part,), 0.0, 1e6)]
    )
    np.savez(tmp_path / "a.npz", images=np.zeros((2000, 60, 60, 3), np.uint8))
    found = audit_images(str(tmp_path / "a.npz"))
    # 458,240 images are 230 epochs of 2,000: 60 s and 230 times 20 s.
    assert propose_recipe(found, Path("a.toml"), 3).advice.endswith(" As many take --minutes 78.")
    assert propose_recipe(found, Path("a.toml"), 78).advice == ""


def test_a_batch_fits_into_the_memory_that_is_free(photos, monkeypatch):
    part = PhaseCost("pretraining", 2, 24, 1e9, 12, 20.0)
    needed = 0.7 * psutil.virtual_memory().available
    monkeypatch.setattr(
        "rotnet_keras.planning.proposal.costs_in_subprocess",
        lambda *_: [RunCost("a", None, 30.0, (part,), 0.0, needed)],
    )
    assert propose_recipe(audit_images(str(photos)), Path("a.toml"), 2).batch == 3


@pytest.mark.slow
def test_small_arrays_are_seen_whole_and_a_trial_tells_the_time(tmp_path):
    images, _ = upright_images(20, channels=2)
    np.savez(tmp_path / "tönes.npz", images=images)
    result = run_cli("init", "tönes.npz", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    file = tmp_path / found["recipe"]
    recipe = load_recipe(str(file))
    assert (
        found["channels"] == 2 and found["epochs"] == recipe.train.epochs and "from a short trial" in file.read_text()
    )
    assert recipe.data.size is None and recipe.augment.pad == 2 and not recipe.augment.crop and not recipe.probe


@pytest.mark.parametrize(("what", "message"), [("nothing", "no folder"), ("text.npz", "not an .npz file")])
def test_what_is_no_data_set_is_told(tmp_path, what, message):
    (tmp_path / "text.npz").write_text("no arrays")
    result = invoke("init", what, cwd=tmp_path)
    assert result.returncode == 3 and message in result.stderr
    assert not list(tmp_path.glob("*.toml"))


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1', ", "long"])
def test_arrays_that_are_not_what_their_headers_say_are_told(tmp_path, content):
    if content == "long":
        whole = io.BytesIO()
        np.save(whole, np.zeros((9, 8, 8, 3), np.uint8))
        content = whole.getvalue().replace(b"(9,", b"(7,")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x_train.npy", content)
    with pytest.raises(DataError, match="cannot be read"):
        audit_images(str(tmp_path / "a.npz"))
