"""What a `classifier.keras` cannot say itself: its classes, its calibration and the size of its images.

The card is a JSON file beside the classifier, `classifier.json`. Nothing here needs Keras or TensorFlow.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rotnet_keras.errors import DataError
from rotnet_keras.files import read_json, write_atomically
from rotnet_keras.runs.exports.backbone_file import maker_of

# The largest card: that of 20,000 classes with long names has 2 MB.
MAX_CARD_BYTES = 2**24


@dataclass(frozen=True)
class ClassifierCard:
    """What is known of a classifier beside its layers.

    Attributes:
        classes: the names of its classes, in the order of its outputs.
        temperature: divides its log-probabilities to calibrate them; None if it could not be fitted.
        uncalibrated: why there is no temperature; empty if there is one.
        images: how many validation images the temperature was fitted on.
        size: the side of the square that images are brought to, in pixels, or height and width; None if the card does
            not say.
        side: the side of the central crop, in pixels, or height and width; None if the card does not say.
        fit: how images are brought to their size: "crop", "stretch" or "letterbox".
    """

    classes: list[str]
    temperature: float | None
    uncalibrated: str
    images: int = 0
    size: int | list[int] | None = None
    side: int | list[int] | None = None
    fit: Literal["crop", "stretch", "letterbox"] = "crop"


def card_path(classifier: Path) -> Path:
    """Return the path of a classifier's card."""
    return classifier.with_suffix(".json")


def write_card(classifier: Path, card: ClassifierCard, inside: Path | None = None) -> None:
    """Write the card of a classifier beside it.

    Args:
        classifier: the file of the classifier.
        card: its card.
        inside: a folder that holds it, at any depth; below this folder no link is followed.
    """
    write_atomically(card_path(classifier), f"{json.dumps(asdict(card), indent=2)}\n".encode(), inside)


def read_card(classifier: Path) -> ClassifierCard | None:
    """Return the card of a classifier; None if there is none.

    A run of an earlier version wrote none: its classes are those of its data, and its probabilities are not calibrated.

    Raises:
        DataError: the card cannot be read, or is a link in a run folder.
    """
    path, maker = card_path(classifier).absolute(), maker_of(classifier)
    try:
        return _checked(path, read_json(path, MAX_CARD_BYTES, maker.path if maker else None))
    except FileNotFoundError:
        data = maker.facts().get("data") if maker else None
        classes = data.get("classes") if isinstance(data, dict) else None
        if not isinstance(classes, list) or not classes:
            return None
        why = "its run is of an earlier version, which did not calibrate"
        return ClassifierCard([str(name) for name in classes], None, why)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: the card of the classifier cannot be read: {reason}") from None


def _checked(path: Path, values: Any) -> ClassifierCard:
    """Return the card with these values.

    Raises:
        DataError: they are not those of a card.
    """
    given = values if isinstance(values, dict) else {}
    classes, temperature = given.get("classes"), given.get("temperature")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise DataError(f"{path}: not the card of a classifier: expected a list of names under classes")
    if temperature is not None and not (isinstance(temperature, int | float) and 0 < temperature < 1e6):
        raise DataError(f"{path}: temperature: expected a positive number or null, got {temperature!r}")
    size, side = map(_shape, map(given.get, ("size", "side")))
    fit = given.get("fit")
    images = given.get("images")
    return ClassifierCard(
        classes,
        None if temperature is None else float(temperature),
        str(given.get("uncalibrated") or ("" if temperature else "its card has no temperature")),
        images if isinstance(images, int) else 0,
        size,
        side,
        fit if fit in ("stretch", "letterbox") else "crop",
    )


def _shape(value: Any) -> int | list[int] | None:
    """Return the side of a square, or height and width; None for anything else."""
    sides = value if isinstance(value, list) and len(value) == 2 else [value]
    return value if all(type(side) is int and side > 0 for side in sides) else None
