"""The card of a model on Hugging Face's hub: README.md, with the front matter that the hub reads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from rotnet_keras.config.shapes import sides_of
from rotnet_keras.errors import DataError
from rotnet_keras.files import read_file
from rotnet_keras.reports.report import check_recipe, render, run_details, without_local_paths
from rotnet_keras.reports.tables import HEAD_NAMES, result_tables
from rotnet_keras.runs.event_fields import check_events
from rotnet_keras.runs.events import Event
from rotnet_keras.runs.exports.backbone_file import BackboneFile, best_probe, default_tap, sizes_of_maker
from rotnet_keras.runs.exports.classifier_card import ClassifierCard, read_card
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.suitability import QUESTION, latest_suitability, summary
from rotnet_keras.runs.zoo import load_card
from rotnet_keras.text import first_few

# The side of the images in the example, for a model that takes any.
ANY_SIDE = 224
# Figures of a run that show none of its images, and their titles.
FIGURES = {"curves.png": "Curves", "confusion.png": "Confusion matrix", "classes.png": "Confusion matrix of the probe"}
MAX_CARD_BYTES = 1 << 22
# What people noted on a run for themselves.
PRIVATE = ("tags", "note")
TAGS = ("self-supervised-learning", "rotation-prediction", "rotnet")
CODE = """\
import keras
import numpy as np

model = keras.saving.load_model("{place}"){hint}
images = np.zeros((8, {height}, {width}, {channels}))  # yours
{use}"""
FEATURES = """\
features = keras.Model(model.input, model.get_layer({tap}).output)
print(features.predict(images).shape)"""
OUTPUTS = "print(model.predict(images).shape)  # {what}"


@dataclass(frozen=True)
class Published:
    """A model that is published.

    Attributes:
        file: the .keras file.
        described: what it says of itself.
        maker: the run, or the pretrained model, whose export it is; None for a file of others.
        licence: the hub's identifier, such as "mit".
        link: the address of a licence of one's own; empty for a known one.
        repository: USER/NAME on the hub; empty as long as it is not known.
    """

    file: Path
    described: BackboneFile
    maker: RunFolder | None
    licence: str
    link: str
    repository: str

    @property
    def role(self) -> str:
        """ "backbone", "rotnet", "classifier", or another name of the file."""
        return self.file.stem

    def code(self) -> str:
        """The example of the card: it loads the model and computes something with it."""
        height, width, channels = self.described.shape
        use = {
            # A layer of a file of others may have any name.
            "backbone": FEATURES.format(tap=json.dumps(default_tap(self.file, self.described.layers))),
            "rotnet": OUTPUTS.format(what="the probabilities of the rotations"),
            "classifier": OUTPUTS.format(what="the probabilities of the classes"),
        }.get(self.role, OUTPUTS.format(what="its outputs"))
        return CODE.format(
            place=f"hf://{self.repository}" if self.repository else ".",
            hint="" if self.repository else '  # this folder; once it is on the hub: "hf://USER/NAME"',
            height=height or ANY_SIDE,
            width=width or ANY_SIDE,
            channels=channels or 3,
            use=use,
        )


def write_card(model: Published, weights: int, figures: Sequence[str]) -> str:
    """Return the text of README.md.

    Args:
        model: what is published.
        weights: how many the model has.
        figures: the names of the figures in the folder `figures` beside it.

    Raises:
        RunError: the events or the recipe of its run lack what is read.
        DataError: the card of a classifier cannot be read.
    """
    run, card = model.maker, read_card(model.file) if model.role == "classifier" else None
    events: list[Event] = run.events() if run else []
    if run:
        check_events(run.events_file, events)
        check_recipe(run)
    zoo = load_card(run) if run else {}
    tested = any(event["kind"] in ("test", "probe") for event in events)
    values = {
        "front": _front_matter(model, events, card),
        "name": model.repository.partition("/")[2] or (run.name if run else model.file.stem),
        "what": _what(model),
        "weights": weights,
        "takes": _takes(model),
        "code": model.code(),
        "classes": _classes(card) if card else "",
        "calibration": _calibration(card) if card else "",
        "data": _data(run.facts().get("data") or zoo.get("data") if run else None),
        "card": _zoo_results(run) if run and zoo else "",
        "tables": result_tables(run) if run and not zoo else [],
        "measured": _measured(bool(events), tested),
        "figures": [(name, FIGURES[name]) for name in figures],
        "recipe": recipe_text(run).strip() if run and not zoo else "",
        "details": [row for row in run_details(run, events) if row[0] not in PRIVATE] if events and run else [],
        "limits": _limits(model, events, card),
        "licence": f"{model.licence} ({model.link})" if model.link else model.licence,
    }
    return render("hub.md", values).rstrip() + "\n"


def recipe_text(run: RunFolder) -> str:
    """Return the recipe of a run as others can use it: TOML without paths of this machine."""
    return tomlkit.dumps(without_local_paths(run.recipe_values()))


def _front_matter(model: Published, events: Sequence[Event], card: ClassifierCard | None) -> dict[str, Any]:
    """Return what the hub reads; each value is written as JSON, which is YAML too."""
    front: dict[str, Any] = {"library_name": "keras", "license": model.licence}
    if model.link:
        front |= {"license_name": model.licence, "license_link": model.link}
    front["pipeline_tag"] = "image-classification" if card else "image-feature-extraction"
    front["tags"] = list(TAGS)
    results = _results(model, events, card)
    if results:
        name = model.repository or (model.maker.name if model.maker else model.file.stem)
        front["model-index"] = [{"name": name, "results": results}]
    return front


def _results(model: Published, events: Sequence[Event], card: ClassifierCard | None) -> list[dict[str, Any]]:
    """Return the accuracy on test images as the hub lists it; empty if there is none."""
    data = model.maker.facts().get("data") if model.maker else None
    tests = [event for event in events if event["kind"] == "test"]
    kind = model.maker.recipe_values().get("kind") if model.maker else ""
    best = best_probe(events)
    if not data:
        return []
    if card and kind == "classify" and tests:
        name, value = "Accuracy on test", tests[-1]["accuracy"]
    elif model.role == "backbone" and best:
        name, value = f"Accuracy on test: {HEAD_NAMES.get(best['head'], best['head'])} on {best['tap']}", best["top1"]
    else:
        return []
    title = Path(str(data.get("name", "images"))).name
    return [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": title, "type": title},
            "metrics": [{"type": "accuracy", "name": name, "value": round(100 * value, 2)}],
        }
    ]


def _what(model: Published) -> str:
    how = "learned to predict by which angle an image was rotated (RotNet, Gidaris et al., ICLR 2018), without labels."
    kind = model.maker.recipe_values().get("kind") if model.maker else ""
    what = {
        "backbone": "A backbone: from an image to maps of features.",
        "rotnet": "A network that predicts by which angle an image was rotated.",
        "classifier": "A classifier of images.",
    }.get(model.role, "A Keras model of images.")
    if kind != "pretrain":
        return what
    return f"{what} {'Its backbone' if model.role == 'classifier' else 'It'} {how}"


def _takes(model: Published) -> str:
    found = model.described
    shape = found.takes if None not in found.shape[:2] else f"any size and {found.shape[2] or 'any number of'} channels"
    size, crop = sizes_of_maker(model.file)
    resized = f" Images are resized to {size[0]} x {size[1]} and cropped to the central part." if size and crop else ""
    if found.takes_values:
        return f"It takes images of {shape} with the numbers that their files hold, and scales them itself.{resized}"
    if found.scales_pixels:
        return f"It takes images of {shape} with values from 0 to 255, and scales them itself.{resized}"
    return f"It takes images of {shape}. No layer of it scales their values: what they have to be, nothing here says."


def _classes(card: ClassifierCard) -> str:
    more = "; `classifier.json` has all" if len(card.classes) > 20 else ""
    return f"Its {len(card.classes):,} classes, in the order of the outputs: {first_few(card.classes, 20)}{more}."


def _calibration(card: ClassifierCard) -> str:
    if card.temperature is None:
        return f"The probabilities are not calibrated: {card.uncalibrated}."
    return (
        f"To calibrate the probabilities, divide their logarithms by {card.temperature:.4g} and apply a softmax; the "
        f"number was fitted on {card.images:,} validation images."
    )


def _data(data: Mapping[str, Any] | None) -> str:
    if not data:
        return "Nothing beside the file says which images it was trained on."
    counts = ", ".join(
        f"{data[split]:,} for {word}"
        for split, word in (("train", "training"), ("validation", "validation"), ("test", "test"))
        if isinstance(data.get(split), int) and data[split]
    )
    shape = " x ".join(map(str, data.get("image_shape") or []))
    classes = data.get("classes") or []
    labelled = (
        f" They have {len(classes):,} classes: {first_few([str(name) for name in classes], 10)}." if classes else ""
    )
    return f"Images of `{Path(str(data.get('name'))).name}`, {shape}: {counts}.{labelled}"


def _zoo_results(run: RunFolder) -> str:
    """Return what the card of a pretrained model says of its results and of how it was made."""
    try:
        text = read_file(run.path / "card.md", MAX_CARD_BYTES).decode()
    except (OSError, ValueError):
        raise DataError(f"{run.path / 'card.md'} cannot be read") from None
    return text.partition("## Results")[1] + text.partition("## Results")[2].partition("\n## Limits")[0].rstrip()


def _measured(known: bool, tested: bool) -> str:
    if not known:
        return "Nothing beside the file says how good it is."
    if tested:
        return "The run that trained the model measured this."
    return "The run that trained the model measured this. It had no test images: no figure is of images unknown to it."


def _limits(model: Published, events: Sequence[Event], card: ClassifierCard | None) -> list[str]:
    found = []
    if card and card.size:
        height, width = sides_of(card.size)
        found.append(f"Images are shown to it at {height} x {width} pixels: smaller things cannot be seen.")
    if card:
        found.append("It knows no other classes than its own, and gives one of them to any image.")
    kind = model.maker.recipe_values().get("kind") if model.maker else ""
    if kind == "pretrain":
        found.append("It learned what is upright in its training images. Other kinds of images may get worse features.")
    suitable = latest_suitability(events)
    if suitable:
        found.append(f"{QUESTION} {summary(suitable)}")
    if model.maker:
        found.append("It comes from one run with one seed.")
    found.append("Nobody has examined it for unfair or unsafe uses: do so before people are affected by what it says.")
    return found
