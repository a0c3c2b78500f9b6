"""Lays out a model as Hugging Face's hub expects it of Keras, checks that it loads from there, and pushes it."""

import json
import os
import re
import shlex
import subprocess
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from rotnet_keras.errors import DataError, RecipeError, RunError
from rotnet_keras.files import has_file, read_file
from rotnet_keras.host import python_command
from rotnet_keras.reports.model_card import FIGURES, Published, recipe_text, write_card
from rotnet_keras.reports.report import MAX_FIGURE_BYTES
from rotnet_keras.runs.exports.backbone_file import maker_of, read_backbone
from rotnet_keras.runs.exports.classifier_card import MAX_CARD_BYTES, card_path
from rotnet_keras.runs.exports.model_files import is_checked
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.zoo import is_shipped

# The hub's names of licences, and of repositories.
LICENCE, REPOSITORY = re.compile(r"[a-z0-9][a-z0-9.+-]{1,39}"), re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}")
OWN_LICENCE = "other"
# Loads the model from the folder without this package, runs the code of the card, and compares the outputs with those
# of the .keras file. It prints how many weights the model has.
CHECK = """\
import json, sys
sys.modules["rotnet_keras"] = None
import keras
import numpy as np
file, code = sys.argv[1:]
folder, original = keras.saving.load_model("."), keras.saving.load_model(file)
shape = [length or default for length, default in zip(original.input_shape[1:], (224, 224, 3))]
images = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype("float32")
same = all(
    np.array_equal(a, b)
    for a, b in zip(*(keras.tree.flatten(model(images, training=False)) for model in (folder, original)))
)
exec(code, {})
print(json.dumps([same, folder.count_params()]))
"""
# As `engine` sets it: HDF5 loads no filters.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "HDF5_PLUGIN_PRELOAD": "::"}
CHECK_SECONDS = 600
# Characters of an error of another package.
MOST_CHARACTERS = 400


def exported_model(run: RunFolder, wanted: str | None) -> Path:
    """Return the exported file of a run: its classifier if it trained one, else its backbone.

    Args:
        run: a run, or a pretrained model.
        wanted: the name of another one, such as "rotnet"; None for the above.

    Raises:
        DataError: there is no such file.
    """
    name = wanted or ("classifier" if run.recipe_values().get("kind") == "classify" else "backbone")
    file = run.export / f"{name}.keras"
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in run.export.glob("*.keras"))) or "none yet"
        raise DataError(f"{run.name} has no exported model {name!r} (it has: {there})")
    return file


def require_licence(licence: str, link: str) -> None:
    """Check how a licence is named.

    Raises:
        RecipeError: it is no identifier of the hub, or one of one's own without an address.
    """
    if not LICENCE.fullmatch(licence):
        raise RecipeError(
            f"--license: expected the hub's name of a licence, such as mit, apache-2.0 or cc-by-4.0, or 'other' with "
            f"--license-link, got {licence!r}"
        )
    if (licence == OWN_LICENCE) != bool(link):
        raise RecipeError("--license-link: expected together with --license other, and with no other licence")


def require_repository(repository: str) -> None:
    """Check how a repository is named, and that it can be pushed to.

    Raises:
        RecipeError: it is not USER/NAME, or the package for it is not installed.
    """
    if not REPOSITORY.fullmatch(repository):
        raise RecipeError(f"--push: expected USER/NAME, got {repository!r}")
    if not find_spec("huggingface_hub"):
        raise RecipeError("--push needs another package; install it with: pip install 'rotnet-keras[hub]'")


def publish(file: Path, target: Path, licence: str, link: str = "", repository: str = "") -> int:
    """Write the folder of a model: the three files that Keras reads, `README.md`, `recipe.toml` and figures.

    It is written under another name, checked by loading it in an interpreter without this package, and renamed.

    Args:
        file: a `.keras` file.
        target: the folder to write; it must not exist.
        licence: the hub's identifier.
        link: the address of a licence of one's own.
        repository: USER/NAME on the hub, for the code of the card; empty if it is not known.

    Returns:
        How many weights the model has.

    Raises:
        RecipeError: the target exists.
        DataError: the file is no model that takes images, may run code, or does not load from the folder.
        RunError: its run cannot be read, or holds a link or what else is not a file or folder of its own.
        OSError: the folder cannot be written; nothing is left.
    """
    if os.path.lexists(target):
        raise RecipeError(f"{target} exists already; remove it, or name another folder with --to")
    maker = maker_of(file)
    # Installers may link the files that ship with the package.
    if maker and not is_shipped(maker.path):
        maker.require_own_files()
    described = read_backbone(file)
    if not is_checked(file):
        from rotnet_keras.models.export import load_backbone

        load_backbone(file)  # The process that checks the folder trusts it.
    model = Published(file, described, maker, licence, link, repository)
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=target.absolute().parent) as place:
        folder = Path(place) / "model"
        folder.mkdir()
        with zipfile.ZipFile(file) as archive:  # Three files, as `read_backbone` has checked.
            archive.extractall(folder)
        weights = _check(folder, model)
        figures = _copy_from_run(folder, model)
        if model.maker:
            (folder / "recipe.toml").write_text(recipe_text(model.maker), encoding="utf-8")
        (folder / "README.md").write_text(write_card(model, weights, figures), encoding="utf-8")
        folder.rename(target)
    return weights


def push(folder: Path, repository: str, private: bool) -> str:
    """Upload a folder to the hub, and return the address of its repository. Needs the network.

    Raises:
        RunError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(library_name="rotnet-keras")
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Upload with rotnet-keras")
    except Exception as error:  # Errors of the hub, of the network and of missing tokens have no common base.
        reason = " ".join(str(error).split())[:MOST_CHARACTERS] or type(error).__name__
        raise RunError(
            f"{repository} cannot be pushed: {reason}. {folder} is complete; when the cause is removed, push it with: "
            f"hf upload {repository} {shlex.quote(str(folder))}"
        ) from None
    return str(address)


def _check(folder: Path, model: Published) -> int:
    """Load the model from the folder and run the code of its card; return how many weights it has.

    Raises:
        DataError: it does not load, or computes something else than the file.
    """
    code = model.code().replace(f'"hf://{model.repository}"', '"."')
    try:
        result = subprocess.run(
            python_command("-c", CHECK, str(model.file.absolute()), code, isolated=True),
            cwd=folder,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{model.file}: takes more than {CHECK_SECONDS} s to load") from None
    try:
        same, weights = json.loads(result.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        reason = (result.stderr.strip().splitlines() or ["no reason is known"])[-1][:MOST_CHARACTERS]
        raise DataError(f"{model.file}: cannot be loaded as Keras loads it from the hub: {reason}") from None
    if not same:
        raise DataError(f"{model.file}: loaded from the folder it computes something else than the file")
    return int(weights)


def _copy_from_run(folder: Path, model: Published) -> list[str]:
    """Copy the card of a classifier, and the figures of a run that show no images; return the names of the figures."""
    run, card = model.maker, card_path(model.file.absolute())
    if model.role == "classifier" and has_file(card):
        (folder / card.name).write_bytes(read_file(card, MAX_CARD_BYTES, run.path if run else None))
    if not run:
        return []
    found = [name for name in FIGURES if has_file(run.figures / name)]
    for name in found:
        (folder / "figures").mkdir(exist_ok=True)
        (folder / "figures" / name).write_bytes(read_file(run.figures / name, MAX_FIGURE_BYTES, run.path))
    return found
