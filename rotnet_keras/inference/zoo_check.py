"""The figures of a network that ships, measured again on the data of its card."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rotnet_keras.config.loading import load_recipe, to_toml
from rotnet_keras.config.schema import PretrainRecipe, ProbeRecipe, Source
from rotnet_keras.config.sections import Augment
from rotnet_keras.data.batches import centred
from rotnet_keras.data.datasets import load
from rotnet_keras.data.sources import pinned
from rotnet_keras.data.stores import Split
from rotnet_keras.errors import DataError
from rotnet_keras.inference.loading import Progress
from rotnet_keras.inference.orientation import Judge, judge
from rotnet_keras.reports.report import HEADS, WEIGHTS
from rotnet_keras.runs.events import probe_images
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.launch import run
from rotnet_keras.runs.zoo import card_of

# Images that are held in memory at once.
AT_ONCE = 1024


@dataclass(frozen=True)
class Figure:
    """An accuracy, 0 to 1, as the card has it and as it is here."""

    what: str
    card: float
    here: float


def rotation_accuracy(network: Judge, split: Split, augment: Augment, progress: Progress) -> float:
    """The share of the turned copies of images whose turn is told, 0 to 1, each copy by itself."""
    right = 0
    for start in range(0, len(split), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(split)))
        said = network.log_probabilities(centred(split.images(rows), augment))
        right += int((said.argmax(axis=2) == np.arange(len(network.angles))).sum())
        progress("turns", start + len(rows), len(split))
    return right / (len(split) * len(network.angles))


def measure_again(
    network: RunFolder,
    overrides: Mapping[str, Any],
    runs_dir: Path,
    progress: Progress = lambda what, done, total: None,
) -> list[Figure]:
    """Measure rotation accuracy and, as a run of its own, the probes of a network that ships.

    Args:
        overrides: of its recipe: where the data are.
        runs_dir: where the run of the probes is kept.

    Raises:
        DataError: the data are not there, or are not those of the card.
    """
    card, recipe = card_of(network), load_recipe(str(network.recipe), overrides)
    assert isinstance(recipe, PretrainRecipe)
    recipe = recipe.model_copy(update={"data": pinned(recipe.data)})
    dataset = load(recipe.data)
    if dataset.fingerprint != card["data"]["fingerprint"]:
        raise DataError(
            f"{dataset.name}: other data than those of the card ({dataset.fingerprint}, not "
            f"{card['data']['fingerprint']}): data.name and data.data_dir say where they are"
        )
    rotation = card["rotation"]
    split = {"test": dataset.test, "validation": dataset.validation}[rotation["split"]]
    if split is None:
        raise DataError(f"{dataset.name}: there are no {rotation['split']} images")
    here = rotation_accuracy(judge(network), split, recipe.augment, progress)
    found = [Figure(f"rotation accuracy on {rotation['split']}", rotation["of_these_files"], here)]
    if recipe.probe:
        found += _probed_again(network, recipe, card, runs_dir)
    return found


def _probed_again(network: RunFolder, recipe: PretrainRecipe, card: Mapping[str, Any], runs_dir: Path) -> list[Figure]:
    """The probes, with their controls, by a run of the kind `probe`."""
    probing = ProbeRecipe(
        kind="probe",
        title=f"{network.name}, probed again",
        seed=recipe.seed,
        data=recipe.data,
        backbone=Source(file=str(network.backbone.absolute())),
        augment=recipe.augment,
        probe=recipe.probe,
    )
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{network.name}.toml"
        file.write_text(to_toml(probing), encoding="utf-8")
        events = run(file, runs_dir=runs_dir).events()
    here = {(e["probe"], e["weights"], e["tap"]): e["top1"] for e in events if e["kind"] == "probe"}
    return [
        Figure(_words(probe, network.settings()), probe["top1"], here[probe["probe"], probe["weights"], probe["tap"]])
        for probe in card["probes"]
    ]


def _words(probe: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    on = "" if probe["weights"] == "pixels" else f", {probe['tap']}"
    return f"{HEADS[probe['head']]}, {probe_images(dict(probe), dict(recipe))}: {WEIGHTS[probe['weights']]}{on}"
