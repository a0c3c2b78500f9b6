"""Whether rotation is a sensible task for a run's images: looked into once, when the training is over."""

import numpy as np

from rotnet_keras.config.sections import Augment
from rotnet_keras.data.batches import centred
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras
from rotnet_keras.evaluation.suitability.ambiguity import by_image, most_ambiguous
from rotnet_keras.evaluation.suitability.image_shortcuts import giveaways
from rotnet_keras.evaluation.suitability.network_shortcuts import reliance
from rotnet_keras.models.rotation import rotate_batch
from rotnet_keras.models.rotnet import RotNet
from rotnet_keras.reports.samples import write_strip
from rotnet_keras.training.session import Session

# Images that are looked at, at most; fewer if their pixels are more bytes than these.
MOST, BYTES = 300, 16_000_000
# With fewer images a share says little.
LEAST = 20
# How often the network is shown every copy: as it is, with two parts exchanged, and smoothed.
PASSES = 4


def look_into(session: Session, dataset: Dataset, model: RotNet, augment: Augment, batch: int, step: int) -> None:
    """Write what a network makes of held-out images one by one, and what it may go by beside their content.

    Args:
        batch: images of which the network is shown the copies at a time.
    """
    name, split = _looked_at(dataset)
    images = _some(split, augment)
    angles = model.angles
    copies = np.asarray(rotate_batch(images, angles)[0])
    enough = len(images) >= LEAST
    parts = -(-len(images) // batch)
    done, total = 0, parts * (PASSES if enough else 1)

    def predict(inputs: np.ndarray) -> np.ndarray:
        nonlocal done
        found = []
        for part in np.array_split(inputs, parts):
            found.append(np.asarray(keras.ops.softmax(model.predict_on_batch(part).astype(np.float32))))
            done += 1
            session.progress("looking for shortcuts", done, total)
        return np.concatenate(found)

    probabilities = predict(copies)
    tiles = most_ambiguous(probabilities, angles)
    file = f"ambiguous-{step:08d}.png"
    write_strip(session.folder.samples, file, images[[tile["image"] for tile in tiles]])
    session.event(
        "suitability",
        step=step,
        split=name,
        images=len(images),
        angles=list(angles),
        **by_image(probabilities, angles),
        file=file,
        tile=int(images.shape[1]),
        tiles=tiles,
        giveaways=giveaways(images, copies, angles) if enough else {},
        reliance=reliance(predict, copies, angles) if enough else {},
    )


def _looked_at(dataset: Dataset) -> tuple[str, Split]:
    """The images that training has not seen, if there are enough."""
    for name, split in (("validation", dataset.validation), ("test", dataset.test)):
        if split is not None and len(split) >= LEAST:
            return name, split
    return "training", dataset.train


def _some(split: Split, augment: Augment) -> np.ndarray:
    """Evenly picked ones, as evaluation shows them: (N, S, S, C) uint8."""
    first = centred(split.images(np.arange(1)), augment)
    count = min(len(split), MOST, max(LEAST, BYTES // first.nbytes))
    return centred(split.images(np.arange(count) * len(split) // count), augment)
