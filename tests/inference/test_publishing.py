"""Models laid out as Hugging Face's hub expects them: Keras alone loads them, and the card says where they are from."""

import json
import re
import shutil
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
import yaml
from support.command_line import invoke, run_python
from support.whole_runs import events_of

from rotnet_keras.runs.zoo import list_pretrained

needs_hub = pytest.mark.skipif(not find_spec("huggingface_hub"), reason="needs rotnet-keras[hub]")
# Keras without this package, in the folder of the model: the code of the card, and outputs for two images.
LOAD = """
import sys
sys.modules["rotnet_keras"] = None
import keras, numpy as np
if len(sys.argv) > 4:
    import huggingface_hub
    from keras.src.saving import saving_lib
    saving_lib.huggingface_hub.snapshot_download = lambda repo_id, **others: {sys.argv[4]: "."}[repo_id]
exec(open(sys.argv[1]).read())
images = np.load(sys.argv[2])
np.save(sys.argv[3], np.asarray(model(images, training=False)))
"""


def front_matter(card):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])


def code_of(card):
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return block


def outputs(folder, code, images, tmp_path, monkeypatch, *repository):
    """What a model computes that was loaded by the code of its card, in its folder."""
    monkeypatch.chdir(folder)
    (tmp_path / "code.py").write_text(code)
    np.save(tmp_path / "images.npy", images)
    run_python(LOAD, tmp_path / "code.py", tmp_path / "images.npy", tmp_path / "out.npy", *repository)
    return np.load(tmp_path / "out.npy")


@pytest.mark.long
@pytest.mark.parametrize("export", ["backbone", "classifier"])
def test_a_published_model_loads_in_keras_alone(export, finished, tmp_path, monkeypatch):
    import keras

    run = finished[1]
    result = invoke("publish", run.path, "--model", export, "--to", "model", "--license", "apache-2.0", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "model"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    expected = {"README.md", "config.json", "metadata.json", "model.weights.h5", "recipe.toml", "figures/curves.png"}
    assert expected <= there and ("classifier.json" in there) == (export == "classifier")
    assert not there & {"figures/samples.png", "figures/ambiguous.png"}, "these show images of the data"
    card = (folder / "README.md").read_text()
    front = front_matter(card)
    assert front["license"] == "apache-2.0" and front["library_name"] == "keras"
    assert front["pipeline_tag"] == {"backbone": "image-feature-extraction"}.get(export, "image-classification")
    accuracy = events_of(run, "test")[-1]["accuracy"]
    assert "| test | " + f"{100 * accuracy:.1f}" in card and "160 for training" in card and "## Limits" in card
    assert "/tmp" not in card and "/tmp" not in (folder / "recipe.toml").read_text()
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("float32")
    got = outputs(folder, code_of(card), images, tmp_path, monkeypatch)
    original = keras.models.load_model(run.export / f"{export}.keras")
    np.testing.assert_allclose(got, np.asarray(original(images, training=False)), rtol=1e-5, atol=1e-6)


@pytest.mark.long
@needs_hub
def test_a_pushed_model_loads_by_its_address(tmp_path, monkeypatch):
    """The hub is a folder here: nothing contacts the network."""
    import huggingface_hub

    hub = tmp_path / "hub"

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, private, exist_ok):
            assert (repo_id, private, exist_ok) == ("me/photos", True, True)
            return f"https://hub/{repo_id}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, hub / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    words = ("publish", "compact4_cifar10", "--license", "mit", "--push", "me/photos", "--private", "--to")
    result = invoke(*words, "model", cwd=tmp_path)
    assert result.returncode == 0 and "Pushed: https://hub/me/photos" in result.stdout, result.stderr
    card = (hub / "me" / "photos" / "README.md").read_text()
    assert 'load_model("hf://me/photos")' in card and "86.0" in card and front_matter(card)["license"] == "mit"
    images = np.zeros((2, 32, 32, 3), "float32")
    assert outputs(hub / "me" / "photos", code_of(card), images, tmp_path, monkeypatch, "me/photos").shape[0] == 2
    # A hub that refuses leaves the folder, and the command that goes on.
    monkeypatch.setattr(Api, "upload_folder", lambda *_, **__: (_ for _ in ()).throw(ValueError("401 Unauthorized")))
    refused = invoke(*words, "again", cwd=tmp_path)
    assert refused.returncode == 1 and "401 Unauthorized" in refused.stderr
    assert "hf upload me/photos again" in refused.stderr and (tmp_path / "again" / "README.md").is_file()


@pytest.mark.long
def test_a_name_of_a_layer_is_no_code(tmp_path):
    """The code of the card is executed before it is published. Keras allows no slash in a name."""
    source, target = list_pretrained()["compact4_cifar10"].backbone, tmp_path / "backbone.keras"
    executed = tmp_path / "executed"
    name = f'" + str(open(chr(47).join({list(executed.parts[1:])}), "w")) + "'.replace("join(", "join([''] + ")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.namelist():
            content = old.read(member).decode("latin-1")
            if member == "config.json":
                for number in range(1, 5):
                    content = content.replace(f'"conv{number}"', json.dumps(f"conv{number}{name}"))
            new.writestr(member, content.encode("latin-1"))
    result = invoke("publish", target, "--to", "model", "--license", "mit", cwd=tmp_path)
    assert not executed.exists()
    # TensorFlow cannot compute with such names: the model is refused, as it would not work for others.
    assert result.returncode == 3 and "cannot be loaded as Keras loads it from the hub: " in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["backbone.keras"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "m"], "Missing option '--license'"),
        (["--to", "m", "--license", "My Licence"], "expected the hub's name of a licence"),
        (["--to", "m", "--license", "other"], "expected together with --license other"),
        (["--to", "m", "--license", "mit", "--license-link", "x"], "expected together with --license other"),
        (["--to", "there", "--license", "mit"], "exists already"),
        (["--to", "none/m", "--license", "mit"], "does not exist; create it first"),
        (["--to", "m", "--license", "mit", "--model", "classifier"], "it has: backbone, rotnet"),
        (["--to", "m", "--license", "mit", "--push", "photos"], "expected USER/NAME"),
        (["--to", "m", "--license", "mit", "--private"], "--push names"),
    ],
)
def test_what_cannot_be_published_is_said_at_once(words, message, tmp_path):
    (tmp_path / "there").mkdir()
    result = invoke("publish", "compact4_cifar10", *words, cwd=tmp_path)
    assert result.returncode in (2, 3) and message in result.stderr, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_missing_package_for_the_hub_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr("rotnet_keras.inference.publishing.find_spec", lambda package: None)
    words = ("--to", "m", "--license", "mit", "--push", "me/photos")
    result = invoke("publish", "compact4_cifar10", *words, cwd=tmp_path)
    assert result.returncode == 2 and "pip install 'rotnet-keras[hub]'" in result.stderr
    assert not list(tmp_path.iterdir())
