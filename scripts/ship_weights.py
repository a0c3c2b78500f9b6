#!/usr/bin/env python3
"""Add a pretrained model to the model zoo, from the finished run that trained it:

    python scripts/ship_weights.py runs/NAME nin4_cifar10 --images "Where they come from, and their terms."

Its confidences are calibrated on the run's validation images. These resemble the training images, so for a model that
meets other photos calibrate it again, on upright photos that it was not trained on and is not measured on:

    python scripts/ship_weights.py --calibrate airbench4_photos --on DIR/photos --source "the validation part of X"

The files are the run's, with kernels stored in float16 and compressed; Keras loads them in float32. Every number on the
card comes from the run's recipe, facts and events, or is measured here on the run's own data. Nothing is written unless
the rotation accuracy of the files is that of the run's files, to within 0.1 points.
"""

import argparse
import io
import json
import re
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import tomlkit

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import PretrainRecipe
from rotnet_keras.data.datasets import load
from rotnet_keras.errors import DataError, RotnetError, RunError
from rotnet_keras.files import write_atomically
from rotnet_keras.inference.loading import list_image_files
from rotnet_keras.inference.orientation import (
    OrientationModel,
    calibrate_temperature,
    fit_temperature,
    load_orientation_model,
    predict,
)
from rotnet_keras.inference.zoo_check import rotation_accuracy
from rotnet_keras.models.export import without_newer_keys
from rotnet_keras.models.rotation import RIGHT_ANGLES
from rotnet_keras.reports.report import pretraining_seconds, render, run_details, without_local_paths
from rotnet_keras.reports.study_pages import KEPT_FACTS
from rotnet_keras.reports.tables import result_tables
from rotnet_keras.runs import zoo
from rotnet_keras.runs.exports.backbone_file import DEFAULT_TAP, best_probe, default_tap, read_backbone
from rotnet_keras.runs.exports.model_files import CONFIG
from rotnet_keras.runs.folder import RunFolder

MODELS = ("backbone", "rotnet")
# Fields of a probe's event that the card leaves out.
LEFT_OUT = ("kind", "time", "step", "confusion", "per_class", "seconds")
MOST_APART = 0.001


def ship(run: RunFolder, name: str, folder: Path, images: str) -> Path:
    """Write the folder of the model, whole or not at all, and return it."""
    if not re.fullmatch(r"[a-z]\w{0,59}", name):
        raise RunError(f"{name!r} cannot name a pretrained model; use lower-case letters, digits and '_'")
    if run.recipe_values().get("kind") != "pretrain" or run.state() != "finished":
        raise RunError(f"{run.name} is not a finished pretraining")
    target = folder / name
    if target.exists():
        raise RunError(f"{target} exists already; delete it first")
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".new-", dir=folder) as place:
        network = RunFolder(Path(place) / name)
        network.export.mkdir(parents=True)
        network.recipe.write_text(tomlkit.dumps(without_local_paths(run.recipe_values())), encoding="utf-8")
        for model in MODELS:
            packed = pack((run.export / f"{model}.keras").read_bytes())
            (network.export / f"{model}.keras").write_bytes(packed)
        card = card_of(run, network, name) | {"images": images}
        (network.path / zoo.CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        values = {
            "card": card,
            "size": zoo.size_mb(network),
            "side": load_orientation_model(network).loader.side,
            "tables": result_tables(run),
            "details": run_details(run, run.events()),
            "recipe": network.recipe.read_text(encoding="utf-8").strip(),
        }
        (network.path / "card.md").write_text(render("card.md", values) + "\n", encoding="utf-8")
        network.path.rename(target)
    return target


def pack(model: bytes) -> bytes:
    """Store the kernels of a `.keras` file as float16; vectors, as in batch normalisation, stay in float32."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(model)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            if name.endswith(".h5"):
                content = packed_weights(content)
            elif name == CONFIG:  # Of a run of an earlier version.
                content = json.dumps(without_newer_keys(json.loads(content))).encode()
            new.writestr(member, content, compresslevel=9)
    return packed.getvalue()


def packed_weights(content: bytes) -> bytes:
    """Store the kernels of the HDF5 file in a `.keras` file as float16."""
    packed = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as old, h5py.File(packed, "w") as new:

        def copy(name: str, node: Any) -> None:
            if isinstance(node, h5py.Group):
                copied = new.require_group(name)
            elif node.ndim < 2:
                copied = new.create_dataset(name, data=node[()])
            else:
                half = node[()].astype(np.float16)
                if not np.isfinite(half).all():
                    raise DataError(f"{name}: a weight is too large for float16")
                copied = new.create_dataset(name, data=half, compression="gzip", compression_opts=9, shuffle=True)
            copied.attrs.update(node.attrs)

        new.attrs.update(old.attrs)
        old.visititems(copy)
    return packed.getvalue()


def card_of(run: RunFolder, network: RunFolder, name: str) -> dict[str, Any]:
    """Return the model card."""
    facts, events, recipe = run.facts(), run.events(), load_recipe(str(run.recipe))
    assert isinstance(recipe, PretrainRecipe)
    dataset = load(recipe.data)
    kind = "validation" if dataset.test is None else "test"
    split = getattr(dataset, kind)
    if split is None:
        raise DataError(f"{run.name} held no images out to measure it on")
    theirs, ours = load_orientation_model(run), load_orientation_model(network)
    before, after = (rotation_accuracy(each, split, recipe.augment, report_progress) for each in (theirs, ours))
    if abs(before - after) > MOST_APART:
        raise DataError(f"{run.name}: rotation accuracy of the packed files is {after}, of its own {before}")
    tests, epochs = ([e for e in events if e["kind"] == wanted] for wanted in ("test", "epoch"))
    recorded = tests[-1] if kind == "test" else epochs[-1]["validation"]
    calibrated = ours.angles == RIGHT_ANGLES and dataset.validation is not None
    return {
        "name": name,
        "title": run.recipe_values()["title"],
        "parameters": facts["parameters"],
        "data": {**facts["data"], "name": Path(facts["data"]["name"]).name},
        "rotation": {
            "angles": list(ours.angles),
            "split": kind,
            "accuracy": recorded["accuracy"],
            "per_class": recorded["per_class"],
            "of_the_runs_files": before,
            "of_these_files": after,
        },
        "temperature": temperature_of(run, ours) if calibrated else None,
        DEFAULT_TAP: default_tap(run.backbone, read_backbone(run.backbone).layers),
        "best_probe": without(best_probe(events)),
        "probes": [without(event) for event in last_probes(events)],
        "made": {
            **{key: facts[key] for key in (*KEPT_FACTS, "precision", "inputs_per_step") if key in facts},
            "pretraining_seconds": round(pretraining_seconds(events)),
            "seed": facts["seed"],
        },
    }


def temperature_of(run: RunFolder, model: OrientationModel) -> float | None:
    """Return the temperature that fits the run's validation images; None where they are too few."""
    try:
        return calibrate_temperature(run, model)
    except DataError as error:
        print(f"{run.name}: not calibrated: {error}", file=sys.stderr)
        return None


def calibrate(network: RunFolder, images: Path, source: str) -> float:
    """Fit the temperature of a pretrained model to the upright photos of a folder, and write it to its card."""
    predictions = predict(load_orientation_model(network), list_image_files([images]), report_progress)
    card = zoo.load_card(network)
    before = render("calibration.md", {"card": card})
    count = len(predictions.files)
    card["temperature"] = fit_temperature(predictions.log_probabilities)
    card["calibration"] = {"images": count, "source": source}
    text = (network.path / "card.md").read_text(encoding="utf-8")
    if before not in text:
        raise DataError(
            f"{network.path / 'card.md'}: it does not have the sentence on calibration that card.json gives"
        )
    text = text.replace(before, render("calibration.md", {"card": card}))
    write_atomically(network.path / zoo.CARD, (json.dumps(card, indent=2) + "\n").encode())
    write_atomically(network.path / "card.md", text.encode())
    return card["temperature"]


def last_probes(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the probes of the finished backbone."""
    probes = [event for event in events if event["kind"] == "probe"]
    last = max((event["step"] for event in probes), default=0)
    return [event for event in probes if event["step"] == last]


def without(event: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a probe's event without the fields that the card leaves out."""
    return event and {key: value for key, value in event.items() if key not in LEFT_OUT}


def report_progress(what: str, done: int, total: int) -> None:
    print(f"{what}: {done:,}/{total:,}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="the folder of a finished pretraining")
    parser.add_argument("name", nargs="?", help="the name of the pretrained model")
    parser.add_argument("--images", help="where its training images come from, and their terms, for the card")
    parser.add_argument("--to", type=Path, default=zoo.FOLDER, help="the folder of the model zoo")
    parser.add_argument("--calibrate", metavar="NAME", help="a pretrained model to calibrate, instead of adding one")
    parser.add_argument("--on", type=Path, metavar="FOLDER", help="upright photos to calibrate on")
    parser.add_argument("--source", help="what these photos are, for the card")
    chosen = parser.parse_args()
    if bool(chosen.calibrate) != bool(chosen.on and chosen.source) or bool(chosen.calibrate) == bool(chosen.name):
        parser.error("expected RUN NAME, or --calibrate NAME --on FOLDER --source TEXT")
    if chosen.name and not chosen.images:
        parser.error("expected --images TEXT")
    try:
        if chosen.calibrate:
            network = RunFolder(chosen.to / chosen.calibrate)
            print(f"{network.path}: temperature {calibrate(network, chosen.on, chosen.source):.3g}")
            return
        target = ship(RunFolder(chosen.run), chosen.name, chosen.to, chosen.images)
    except RotnetError as error:
        sys.exit(str(error))
    print(f"{target}: {zoo.size_mb(RunFolder(target)):.1f} MB")


if __name__ == "__main__":
    main()
