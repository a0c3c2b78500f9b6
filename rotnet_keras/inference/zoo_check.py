"""The accuracies on the card of a pretrained model, measured again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rotnet_keras.config.loading import load_recipe, to_toml
from rotnet_keras.config.schema import BackboneSource, PretrainRecipe, ProbeRecipe
from rotnet_keras.config.sections import Augment
from rotnet_keras.data.batches import center_crop
from rotnet_keras.data.datasets import load
from rotnet_keras.data.fingerprints import in_form_of
from rotnet_keras.data.sources import pin_paths
from rotnet_keras.data.stores import Split
from rotnet_keras.errors import DataError
from rotnet_keras.inference.loading import Progress
from rotnet_keras.inference.orientation import OrientationModel, load_orientation_model
from rotnet_keras.reports.tables import HEAD_NAMES, WEIGHTS_NAMES
from rotnet_keras.runs.events import describe_probe_data
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.launch import run
from rotnet_keras.runs.zoo import load_card

# Images held in memory at once.
CHUNK = 1024


@dataclass(frozen=True)
class CardCheck:
    """An accuracy of a model card beside the one measured now.

    Attributes:
        name: what was measured.
        card: the accuracy on the card, 0 to 1.
        measured: the accuracy now, 0 to 1.
    """

    name: str
    card: float
    measured: float


def rotation_accuracy(model: OrientationModel, split: Split, augment: Augment, progress: Progress) -> float:
    """Accuracy of the predicted rotation over the rotated copies of all images of a split, 0 to 1."""
    correct = 0
    for start in range(0, len(split), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(split)))
        log_probabilities = model.log_probabilities(center_crop(split.images(rows), augment, split.values))
        correct += int((log_probabilities.argmax(axis=2) == np.arange(len(model.angles))).sum())
        progress("rotation accuracy", start + len(rows), len(split))
    return correct / (len(split) * len(model.angles))


def check_card(
    pretrained: RunFolder,
    overrides: Mapping[str, Any],
    runs_dir: Path,
    progress: Progress = lambda what, done, total: None,
) -> list[CardCheck]:
    """Measure the rotation accuracy of a pretrained model and, in a run of its own, its probes.

    Args:
        pretrained: folder of the model in the zoo.
        overrides: of its recipe, by dotted key: where its data are on this machine.
        runs_dir: where the run of the probes is kept.
        progress: called as the rotation accuracy is measured.

    Returns:
        A check for each accuracy on the card.

    Raises:
        DataError: the data do not exist, or are other data than those of the card.
    """
    card, recipe = load_card(pretrained), load_recipe(str(pretrained.recipe), overrides)
    assert isinstance(recipe, PretrainRecipe)
    recipe = recipe.model_copy(update={"data": pin_paths(recipe.data)})
    dataset = load(recipe.data)
    recorded = card["data"]["fingerprint"]
    found_data = in_form_of(recorded, dataset.fingerprint, dataset.old_fingerprint)
    if found_data != recorded:
        raise DataError(
            f"{dataset.name}: these are other data than those of the card (fingerprint {found_data}, expected "
            f"{recorded}): set data.name and data.data_dir to where the card's data are"
        )
    rotation = card["rotation"]
    split = {"test": dataset.test, "validation": dataset.validation}[rotation["split"]]
    if split is None:
        raise DataError(f"{dataset.name}: expected {rotation['split']} images, and there are none")
    measured = rotation_accuracy(load_orientation_model(pretrained), split, recipe.augment, progress)
    found = [CardCheck(f"rotation accuracy on {rotation['split']}", rotation["of_these_files"], measured)]
    if recipe.probe:
        found += _probe_again(pretrained, recipe, card, runs_dir)
    return found


def _probe_again(
    pretrained: RunFolder, recipe: PretrainRecipe, card: Mapping[str, Any], runs_dir: Path
) -> list[CardCheck]:
    """Measure the probes and their baselines in a run of the kind `probe`."""
    probing = ProbeRecipe(
        kind="probe",
        title=f"{pretrained.name}, probed again",
        seed=recipe.seed,
        data=recipe.data,
        backbone=BackboneSource(file=str(pretrained.backbone.absolute())),
        augment=recipe.augment,
        probe=recipe.probe,
    )
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{pretrained.name}.toml"
        file.write_text(to_toml(probing), encoding="utf-8")
        events = run(file, runs_dir=runs_dir).events()
    measured = {(e["probe"], e["weights"], e["tap"]): e["top1"] for e in events if e["kind"] == "probe"}
    return [
        CardCheck(
            _probe_name(probe, pretrained.recipe_values()),
            probe["top1"],
            measured[probe["probe"], probe["weights"], probe["tap"]],
        )
        for probe in card["probes"]
    ]


def _probe_name(probe: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    on = "" if probe["weights"] == "pixels" else f", {probe['tap']}"
    trained_on = describe_probe_data(dict(probe), dict(recipe))
    return f"{HEAD_NAMES[probe['head']]}, {trained_on}: {WEIGHTS_NAMES[probe['weights']]}{on}"
