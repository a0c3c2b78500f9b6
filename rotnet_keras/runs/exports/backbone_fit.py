"""Fits the data of a recipe to the images that its pretrained backbone takes, before any of them is read."""

from pathlib import Path
from typing import Any, TypeVar

from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, RunRecipe, SeededRecipe
from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.config.shapes import sides_of
from rotnet_keras.config.transfer import TransferRecipe
from rotnet_keras.errors import DataError
from rotnet_keras.runs.exports.backbone_file import (
    NORMALIZATION,
    BackboneFile,
    Sizes,
    maker_of,
    read_backbone,
    sizes_of_maker,
)

R = TypeVar("R", bound=SeededRecipe)


def fit_to_backbone(recipe: R) -> tuple[R, str]:
    """Derive what a recipe leaves open about its images from the file of its backbone.

    A probe takes images of exactly the backbone's size. Training adapts a backbone to other sizes, so there the size is
    derived only where the recipe says nothing of it.

    Returns:
        The recipe, and a sentence about what a pretraining goes on from and the keys that were derived; empty if there
        is neither.

    Raises:
        DataError: what the recipe says does not fit the backbone; the message names every key.
    """
    if isinstance(recipe, ProbeRecipe):
        file = Path(str(recipe.backbone.file))
    elif isinstance(recipe, PretrainRecipe | ClassifyRecipe | TransferRecipe) and recipe.pretrained:
        file = Path(str(recipe.pretrained.file))
    else:
        return recipe, ""
    found = read_backbone(file)
    if not isinstance(recipe, RunRecipe):
        if found.shape[2] not in (None, 3):
            raise DataError(f"pretrained: {file} takes images of {found.takes}, and annotated images have 3 channels")
        return recipe, ""
    from rotnet_keras.data.audit import default_shape  # Needs numpy, which most commands do not.

    shape, channels = default_shape(recipe.data)
    derived, problems = _channels(recipe.data, found, channels)
    if isinstance(recipe, ProbeRecipe):
        sizes, unfit = _sizes(recipe.data, recipe.augment, found, shape, sizes_of_maker(file))
        derived, problems = sizes | derived, unfit + problems + _taps(recipe, found)
    elif isinstance(recipe, PretrainRecipe | ClassifyRecipe):
        if recipe.data.size is None and recipe.augment.crop is None:
            derived = _sizes(recipe.data, recipe.augment, found, shape, sizes_of_maker(file))[0] | derived
        if isinstance(recipe, PretrainRecipe):
            problems += _taps(recipe, found) + _start(recipe, found)
    if problems:
        raise DataError(f"{file} takes images of {found.takes}: {'; '.join(problems)}")
    begun = _beginning(recipe, file, found)
    if not derived:
        return recipe, begun
    data = {key.removeprefix("data."): value for key, value in derived.items() if key.startswith("data.")}
    update: dict[str, Any] = {"data": recipe.data.model_copy(update=data)}
    if "augment.crop" in derived:
        assert isinstance(recipe, PretrainRecipe | ProbeRecipe | ClassifyRecipe)
        update["augment"] = recipe.augment.model_copy(update={"crop": derived["augment.crop"]})
    keys = ", ".join(f"{key} = {value}" for key, value in derived.items())
    sentence = f"takes images of {found.takes}, hence {keys}"
    return recipe.model_copy(update=update), f"{begun}; {sentence}" if begun else sentence


def _beginning(recipe: SeededRecipe, file: Path, found: BackboneFile) -> str:
    """Say what a pretraining takes from the file that it goes on from; nothing for other recipes."""
    if not isinstance(recipe, PretrainRecipe) or recipe.pretrained is None:
        return ""
    maker = maker_of(file)
    if recipe.pretrained.statistics == "images":
        scaled = "pixels are scaled by the mean and standard deviation of these images"
    elif found.scales_pixels:
        scaled = "pixels are scaled by the model's own mean and standard deviation"
    else:
        scaled = "pixels are not scaled, as the model has no layer for that: it gets 0 to 255"
    return f"goes on from the weights of {maker.name if maker else file}, with a new head; {scaled}"


def _start(recipe: PretrainRecipe, found: BackboneFile) -> list[str]:
    """Return what is wrong with what a pretraining asks of the layers that it goes on from."""
    start, problems = recipe.pretrained, []
    if start and start.frozen and start.frozen not in found.layers:
        problems.append(f"pretrained.frozen: it has no layer {start.frozen}; its layers end in {found.last}")
    if start and start.statistics == "images" and NORMALIZATION not in found.layers:
        problems.append(
            f"pretrained.statistics: it has no layer {NORMALIZATION!r} to take those of the images, as models of this "
            "package have; leave it out"
        )
    return problems


def _taps(recipe: ProbeRecipe | PretrainRecipe, found: BackboneFile) -> list[str]:
    """Return what is wrong with the layers that the probes read."""
    problems = []
    for number, probe in enumerate(recipe.probe):
        if probe.tap == ["all"] and not found.taps:
            problems.append(
                f"probe.{number}.tap = 'all' needs layers named conv1, conv2, ...; its own end in {found.last}"
            )
        # Layers that are read side by side are joined by a plus.
        layers = [layer for tap in probe.tap if tap != "all" for layer in tap.split("+")]
        unknown = [layer for layer in dict.fromkeys(layers) if layer not in found.layers]
        if unknown:
            problems.append(f"probe.{number}.tap: it has no layer {', '.join(unknown)}; its layers end in {found.last}")
    return problems


def _channels(data: Data, found: BackboneFile, default: int | None) -> tuple[dict[str, int], list[str]]:
    wanted, have = found.shape[2], data.channels or default
    if wanted is None or have is None or have == wanted:
        return {}, []
    if data.channels:
        return {}, [f"set data.channels = {wanted}, or leave it out (it is {data.channels})"]
    if wanted in (1, 3) and have in (1, 3):
        return {"data.channels": wanted}, []
    return {}, [f"the images have {have} channels, which cannot be converted to {wanted}"]


def _sizes(
    data: Data, augment: Augment, found: BackboneFile, default: tuple[int, int] | None, maker: Sizes
) -> tuple[dict[str, Any], list[str]]:
    """Derive the sizes of images and crops.

    Args:
        default: height and width of the images if the recipe sets none; None if they may have any.
        maker: the sizes that the run which made the backbone resizes to and crops.
    """
    height, width = found.shape[:2]
    if height is None or width is None:
        return {}, []
    wanted = height, width
    size, crop = (sides_of(each) if each else None for each in (data.size, augment.crop))
    if crop not in (None, wanted):
        # What is said of `size` as well must hold together with the new crop.
        resize = "" if size is None or _covers(size, wanted, augment.pad) else f" and data.size = {_short(wanted)}"
        return {}, [f"set augment.crop = {_short(wanted)}{resize}, or leave both out (augment.crop is {augment.crop})"]
    if size is not None:
        if not _covers(size, wanted) and crop is None:
            return {}, [f"set data.size = {_short(wanted)}, or leave it out (it is {data.size})"]
        return ({} if crop or size == wanted else {"augment.crop": _short(wanted)}), []
    if default == wanted or (default is not None and crop and _covers(default, wanted, augment.pad)):
        return {}, []
    of_maker = maker[0] if maker[0] and wanted in (maker[1], maker[0]) and _covers(maker[0], wanted) else None
    resized = of_maker or wanted
    derived = {"data.size": _short(resized)}
    if resized != wanted and not crop:
        derived["augment.crop"] = _short(wanted)
    return derived, []


def _covers(size: tuple[int, int], wanted: tuple[int, int], pad: int = 0) -> bool:
    return all(side + 2 * pad >= least for side, least in zip(size, wanted, strict=True))


def _short(shape: tuple[int, int]) -> int | list[int]:
    """Return the side of a square, or height and width, as a recipe has them."""
    return shape[0] if shape[0] == shape[1] else list(shape)
