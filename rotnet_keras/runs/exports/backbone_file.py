"""What an exported backbone says of itself, read from its `.keras` file and its run folder without TensorFlow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, Recipe, RunRecipe
from rotnet_keras.config.shapes import sides_of
from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.runs.events import Event, newest_probes
from rotnet_keras.runs.exports.model_files import check_description, read_config
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.zoo import load_card

# The key of the default tap in `run.json`, and in the card of a pretrained model.
DEFAULT_TAP = "default_tap"
# The layer that scales pixels in the backbones of this package.
NORMALIZATION = "normalization"
# The name of the input of models that take the numbers of files with more than 8 bits as they are.
VALUES = "values"

# Height, width and channels of a model's input; None for what the model leaves open.
InputShape = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class BackboneFile:
    """The description of a model in its `.keras` file.

    Attributes:
        name: of the model.
        shape: (H, W, C) of the images that it takes.
        layers: the names of its layers.
        scales_pixels: whether a layer, also of a model inside it, scales pixels.
        takes_values: whether it takes the numbers of files with more than 8 bits as they are.
        normalises_batches: whether a layer, also of a model inside it, is a batch normalisation.
    """

    name: str
    shape: InputShape
    layers: list[str]
    scales_pixels: bool
    takes_values: bool = False
    normalises_batches: bool = False

    @property
    def taps(self) -> list[str]:
        """The names of the taps in order: the layers named `conv<number>`."""
        return tap_names(self.layers)

    @property
    def last(self) -> str:
        """The names of its last layers."""
        return ", ".join(self.layers[-5:])

    @property
    def takes(self) -> str:
        """The images that it takes, in words: "64 x 64 x 3", with "any" for what is left open."""
        return " x ".join("any" if length is None else str(length) for length in self.shape)


def tap_names(layers: Sequence[str]) -> list[str]:
    """Return those of some layers that are taps: the ones named `conv<number>`."""
    return [name for name in layers if name[:4] == "conv" and name[4:].isdigit()]


def read_backbone(path: Path) -> BackboneFile:
    """Read the description of a model; its weights are not read.

    Raises:
        DataError: the file is no `.keras` file of a model that takes images (N, H, W, C), or may run code.
    """
    check_description(path)
    values = read_config(path)
    config = _table(values, "config")
    layers = [each for each in config.get("layers") or [] if isinstance(each, dict)]
    names = [str(_table(layer, "config").get("name", layer.get("name", ""))) for layer in layers]
    if not layers:
        raise DataError(f"{path}: expected a functional or a sequential model, got {values.get('class_name')!r}")
    shape = _input_shape(values, config, layers)
    if shape is None:
        raise DataError(f"{path}: expected a model with one input of images (N, H, W, C)")
    of_inputs = [name for name, each in zip(names, layers, strict=True) if each.get("class_name") == "InputLayer"]
    scales_pixels = _has_layer(layers, ("Rescaling", "Normalization"))
    normalises_batches = _has_layer(layers, ("BatchNormalization",))
    return BackboneFile(str(config.get("name")), shape, names, scales_pixels, of_inputs == [VALUES], normalises_batches)


def takes_values(path: Path) -> bool:
    """Return whether a model takes the numbers of files with more than 8 bits as they are; no if it cannot be read."""
    try:
        return read_backbone(path).takes_values
    except (DataError, OSError):
        return False


def _has_layer(layers: Sequence[dict[str, Any]], kinds: Sequence[str]) -> bool:
    """Return whether one of the layers, or a layer of a model among them, is of one of these classes."""
    inner = [_table(layer, "config").get("layers") for layer in layers]
    return any(layer.get("class_name") in kinds for layer in layers) or any(
        _has_layer([each for each in part if isinstance(each, dict)], kinds) for part in inner if isinstance(part, list)
    )


def _table(values: Any, key: str) -> dict[str, Any]:
    inner = values.get(key) if isinstance(values, dict) else None
    return inner if isinstance(inner, dict) else {}


def _input_shape(values: dict[str, Any], config: dict[str, Any], layers: Sequence[dict[str, Any]]) -> InputShape | None:
    """Return the shape of the images that a model takes; None if it does not say so, or takes something else."""
    wanted = config.get("input_layers")
    while isinstance(wanted, list) and wanted and isinstance(wanted[0], list):
        if len(wanted) > 1:
            return None
        wanted = wanted[0]
    name = wanted[0] if isinstance(wanted, list) and wanted else None
    tables = [_table(layer, "config") for layer in layers if layer.get("class_name") == "InputLayer"]
    shapes = [
        table.get("batch_shape", table.get("batch_input_shape"))
        for table in tables
        if name is None or table.get("name") == name
    ]
    # A sequential model without an input layer keeps what it was built for.
    shape = shapes[0] if shapes else _table(values, "build_config").get("input_shape")
    if not isinstance(shape, list) or len(shape) != 4:
        return None
    height, width, channels = (length if isinstance(length, int) else None for length in shape[1:])
    return height, width, channels


def maker_of(path: Path) -> RunFolder | None:
    """Return the run folder, or the folder of a pretrained model, whose export a file is; None if it is in none."""
    folder = RunFolder(path.absolute().parent.parent)
    return folder if path.absolute().parent == folder.export and folder.recipe.is_file() else None


# Heights and widths.
Sizes = tuple[tuple[int, int] | None, tuple[int, int] | None]


def sizes_in(recipe: Recipe | None) -> Sizes:
    """Return the sizes that a recipe resizes images to and crops from them; None for what it does not say."""
    if isinstance(recipe, PretrainRecipe | ClassifyRecipe):
        size, crop = recipe.data.size, recipe.augment.crop
        return (sides_of(size) if size else None), (sides_of(crop) if crop else None)
    return None, None


def sizes_of_maker(path: Path) -> Sizes:
    """Return the sizes that the run which made a backbone resizes images to and crops from them."""
    maker = maker_of(path)
    try:
        return sizes_in(load_recipe(str(maker.recipe)) if maker else None)
    except RecipeError:
        return None, None


def fit_of_maker(path: Path) -> Literal["crop", "stretch", "letterbox"]:
    """Return how the run which made a backbone brings images to their size; "crop" where none did."""
    maker = maker_of(path)
    try:
        recipe = load_recipe(str(maker.recipe)) if maker else None
    except RecipeError:
        return "crop"
    return recipe.data.fit if isinstance(recipe, RunRecipe) else "crop"


def best_probe(events: Sequence[Event]) -> Event | None:
    """Return the newest probe of the RotNet features that is best on validation, never chosen by its test accuracy."""
    ours = [e for e in newest_probes(events) if e["weights"] == "rotnet" and "validation_top1" in e]
    return max(ours, key=lambda e: (e["labels_per_class"] is None, e["validation_top1"]), default=None)


def choose_tap(layers: Sequence[str], events: Sequence[Event]) -> str:
    """Choose the layer whose features are read where none is named.

    Args:
        layers: of the backbone, in order.
        events: of the run that made it.

    Returns:
        The tap whose probe is best on validation. The middle tap, which separates object classes best (paper, Tables 1
        and 5), where there is no such probe, or where the middle tap's is within one standard error of the best: few
        validation images cannot tell the two apart. Of a backbone without taps the last layer.
    """
    best, taps = best_probe(events), tap_names(layers)
    middle = taps[(len(taps) - 1) // 2] if taps else layers[-1]
    if best is None or best["tap"] not in layers or _is_as_good(middle, best, events):
        return middle
    return str(best["tap"])


def _is_as_good(tap: str, best: Event, events: Sequence[Event]) -> bool:
    """Return whether a tap's probe is within one standard error of the best one's validation accuracy."""
    images, accuracy = best.get("validation_images", 0), best["validation_top1"]
    alike = ("weights", "probe", "labels_per_class")
    others = [
        event["validation_top1"]
        for event in newest_probes(events)
        if event["tap"] == tap and all(event.get(key) == best.get(key) for key in alike) and "validation_top1" in event
    ]
    if not (images > 0 and others):
        return False
    return max(others) >= accuracy - math.sqrt(max(0.0, accuracy * (1 - accuracy)) / images)


def default_tap(path: Path, layers: Sequence[str]) -> str:
    """Return the layer of an exported backbone whose features are read where none is named.

    It was chosen when the run ended, and stands in `run.json`, or in the card of a pretrained model. For other files
    and runs of earlier versions it is chosen now.

    Args:
        path: a `.keras` file.
        layers: of the backbone, in order.
    """
    maker = maker_of(path)
    if maker is None:
        return choose_tap(layers, [])
    known = maker.facts().get(DEFAULT_TAP) or load_card(maker).get(DEFAULT_TAP)
    return known if isinstance(known, str) and known in layers else choose_tap(layers, maker.thinned_events())
