"""Rules between the sections of a recipe: problems of recipes whose sections are each valid by themselves."""

import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import ValidationError

from rotnet_keras.config.renamed_keys import Location
from rotnet_keras.config.schema import Auxiliary, Head, Joint, Start
from rotnet_keras.config.sections import AnnotatedData, Augment, Backbone, Data, Devices, Rotation, Section, Train
from rotnet_keras.config.shapes import sides_of
from rotnet_keras.config.study import StudyRecipe

S = TypeVar("S", bound=Section)

# Angles that leave the height and the width of an image as they are.
HALF_TURNS = {0, 180}


def cross_section_errors(values: dict[str, Any]) -> Iterator[tuple[Location, str]]:
    """Yield the location and message of each problem between sections; invalid sections are passed over.

    Args:
        values: the recipe as it was parsed, unchecked.
    """
    probes = values.get("probe")
    backbone = _section(Backbone, values.get("backbone"))
    for i, raw in enumerate(probes if isinstance(probes, list) else []):
        tap = raw.get("tap", []) if isinstance(raw, dict) else []
        for name in tap if isinstance(tap, list) else [tap]:
            if not isinstance(name, str):
                continue
            parts = name.split("+")
            known = [*backbone.feature_layers(), *(["all"] if len(parts) == 1 else [])] if backbone else parts
            if backbone and not set(parts) <= set(known):
                expected = ", ".join(backbone.feature_layers())
                yield (
                    ("probe", i, "tap"),
                    f"no tap {name!r} in {backbone.name}: expected 'all', {expected}, or several joined by '+'",
                )
            elif not all(re.fullmatch(r"[A-Za-z_]\w*", part) for part in parts):
                yield ("probe", i, "tap"), f"tap: not a layer's name: {name!r}"
        if isinstance(raw, dict) and raw.get("head") == "knn" and raw.get("augment") is True:
            yield ("probe", i, "augment"), "augment: k-NN compares stored features and cannot augment; leave it out"
        if isinstance(raw, dict) and raw.get("views") is not None and raw.get("augment") is not True:
            yield ("probe", i, "views"), "views: only augmented images have views; set augment = true"
        averages = isinstance(raw, dict) and raw.get("average") in ("mirror", "crops")
        if averages and raw.get("augment") is True and raw.get("views") is None:
            yield (
                ("probe", i, "average"),
                "average: features that are computed anew in every step are not averaged; set views, or leave it out",
            )
    if values.get("kind") == "study":
        yield from _study_errors(values)
        return
    if values.get("kind") == "pretrain":
        yield from _pretraining_errors(values)
    elif isinstance(values.get("data"), dict) and values["data"].get("only") is not None:
        yield ("data", "only"), "only: for recipes of the kind 'pretrain'; leave it out"
    if values.get("kind") in ("classify", "transfer"):
        yield from _classifier_errors(values, backbone)
    if values.get("kind") == "transfer" and backbone and backbone.name == "airbench":
        yield (
            ("backbone", "name"),
            "name: the first layer of 'airbench' is computed from images before a pretraining, and stays random here: "
            "name another backbone, or pretrain one and give it in [pretrained]",
        )
    train, devices = _section(Train, values.get("train")), _section(Devices, values.get("devices", {}))
    if train and devices and train.accumulate > 1 and devices.strategy == "tpu":
        yield (
            ("train", "accumulate"),
            "accumulate: the parts of a batch cannot be compiled for a TPU; leave it out, or use a smaller batch",
        )
    augment = _section(Augment, values.get("augment", {}))
    data: AnnotatedData | Data | None
    if values.get("kind") == "transfer":
        data = _section(AnnotatedData, values.get("data"))
    else:
        data = _section(Data, values.get("data"))
    if augment and data and augment.pad and (isinstance(data, AnnotatedData) or data.whole):
        remedy = "leave pad out" if isinstance(data, AnnotatedData) else "leave augment.pad or data.whole out"
        yield ("augment", "pad"), f"pad: crops from whole images cannot be padded; {remedy}"
    if augment and data and augment.crop and data.size:
        largest = [side + 2 * augment.pad for side in sides_of(data.size)]
        if any(side > most for side, most in zip(sides_of(augment.crop), largest, strict=True)):
            most = largest[0] if isinstance(data.size, int) else largest
            yield (
                ("augment", "crop"),
                f"crop: expected at most data.size + 2 * augment.pad = {most}, got {augment.crop}",
            )
    if augment and data:
        yield from _rectangle_errors(values, augment.crop or data.size)
        yield from _translation_errors(values, augment.crop or data.size)


def _rectangle_errors(values: dict[str, Any], size: int | list[int] | None) -> Iterator[tuple[Location, str]]:
    """Yield a problem where images that are no squares would be rotated by other angles than 0 and 180 degrees."""
    if size is None or len(set(sides_of(size))) == 1:
        return
    section = "rotation"
    found: Rotation | Auxiliary | Joint | None = None
    if values.get("kind") == "pretrain":
        found = _section(Rotation, values.get("rotation", {}))
    elif values.get("kind") == "classify" and "auxiliary" in values:
        section, found = "auxiliary", _section(Auxiliary, values["auxiliary"])
    elif values.get("kind") == "classify" and "joint" in values:
        section, found = "joint", _section(Joint, values["joint"])
    if found and not set(found.angles) <= HALF_TURNS:
        height, width = sides_of(size)
        yield (
            (section, "angles"),
            f"{section}.angles: images of {height} x {width} pixels are no squares, and {found.angles} would exchange "
            f"height and width: set {section}.angles = [0, 180], or a square data.size or augment.crop",
        )


def _translation_errors(values: dict[str, Any], size: int | list[int] | None) -> Iterator[tuple[Location, str]]:
    """Yield a problem where images would be shifted by their whole side, or more."""
    rotation = _section(Rotation, values.get("rotation", {})) if values.get("kind") == "pretrain" else None
    if rotation and size is not None and rotation.translation >= min(sides_of(size)):
        yield (
            ("rotation", "translation"),
            f"translation: expected less than the side of the images, {min(sides_of(size))}, got "
            f"{rotation.translation}",
        )


def _pretraining_errors(values: dict[str, Any]) -> Iterator[tuple[Location, str]]:
    if ("backbone" in values) == ("pretrained" in values):
        yield (
            ("backbone",),
            "expected one of [backbone], to train from scratch, and [pretrained], to go on from weights",
        )
        return
    start, data = _section(Start, values.get("pretrained")), values.get("data")
    for key in ("mean", "std"):
        if start and start.statistics == "model" and isinstance(data, dict) and key in data:
            yield ("data", key), f"{key}: the pretrained backbone keeps its own; leave it out (pretrained.statistics)"


def _classifier_errors(values: dict[str, Any], backbone: Backbone | None) -> Iterator[tuple[Location, str]]:
    if ("backbone" in values) == ("pretrained" in values):
        yield (
            ("backbone",),
            "expected one of [backbone], to train from scratch, and [pretrained], to fine-tune",
        )
    if "auxiliary" in values and "joint" in values:
        yield ("joint",), "expected at most one of [auxiliary], a second task, and [joint], one task of both"
    head = _section(Head, values.get("head", {}))
    if head and backbone and head.tap and head.tap not in backbone.feature_layers():
        expected = ", ".join(backbone.feature_layers())
        yield ("head", "tap"), f"no tap {head.tap!r} in {backbone.name}: expected {expected}"


def _study_errors(values: dict[str, Any]) -> Iterator[tuple[Location, str]]:
    study = _section(StudyRecipe, values)
    if study is None:
        return
    if study.scale not in study.scales:
        yield ("scale",), f"scale: expected one of {', '.join(map(repr, study.scales))}, got {study.scale!r}"
        return
    recipes, names = study.scales[study.scale].recipes, [run.name for run in study.run]
    for i, run in enumerate(study.run):
        if run.recipe not in recipes:
            yield ("run", i, "recipe"), f"recipe: expected one of {', '.join(map(repr, recipes))}, got {run.recipe!r}"
        if run.name in names[:i]:
            yield ("run", i, "name"), f"name: an earlier run is called {run.name!r} too"
        for key, other in (("of", run.of), ("like", run.like)):
            if other is not None and other not in names[:i]:
                yield ("run", i, key), f"{key}: no earlier run is called {other!r}"
    for name, scale in study.scales.items():
        for run_name in scale.set:
            if run_name not in names:
                yield ("scales", name, "set", run_name), f"set: no run is called {run_name!r}"
    for t, table in enumerate(study.table):
        for e, entry in enumerate(table.entry):
            if entry.run is not None and entry.run not in names:
                yield ("table", t, "entry", e, "run"), f"run: no run is called {entry.run!r}"
            if table.x and entry.by != "epoch" and not re.fullmatch(r"\d+(\.\d+)?", entry.column or ""):
                yield ("table", t, "entry", e, "column"), f"column: expected a number, since x = {table.x!r}"
    for p, picture in enumerate(study.picture):
        for run_name in picture.models.values():
            if run_name not in names:
                yield ("picture", p, "models"), f"models: no run is called {run_name!r}"
    for f, finding in enumerate(study.finding):
        if finding.table >= len(study.table):
            count = len(study.table)
            yield ("finding", f, "table"), f"table: expected a position below {count}, the number of tables"


def _section(model: type[S], raw: Any) -> S | None:
    """Return the section, or None if it is invalid, which the schema's own check reports."""
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None
