"""Whether rotation is a sensible task for a run's images, measured once at the end of the training."""

import numpy as np

from rotnet_keras.config.sections import Augment
from rotnet_keras.data.batches import center_crop
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras
from rotnet_keras.evaluation.suitability.ambiguity import most_ambiguous, per_image_statistics
from rotnet_keras.evaluation.suitability.image_shortcuts import image_shortcuts
from rotnet_keras.evaluation.suitability.network_shortcuts import network_shortcuts
from rotnet_keras.models.rotation import rotate_batch
from rotnet_keras.models.rotnet import RotNet
from rotnet_keras.reports.samples import write_image_strip
from rotnet_keras.training.session import Session

# Images that are measured, at most; fewer if their pixels take more bytes than these.
MAX_IMAGES, MAX_BYTES = 300, 16_000_000
# Below this number of images a share says little, and shortcuts are not looked for.
FEWEST = 20
# How often the model predicts every copy: as it is, with two parts exchanged, and smoothed.
PASSES = 4


def measure_suitability(
    session: Session, dataset: Dataset, model: RotNet, augment: Augment, batch: int, step: int
) -> None:
    """Write a `suitability` event: predictions image by image, and possible shortcuts in the images and in the model.

    Args:
        session: of the run; gets the event and a strip of the most ambiguous images.
        dataset: its validation images are measured if there are enough, else the test images or the training images.
        model: the trained rotation model.
        augment: crops of the evaluation.
        batch: images whose copies the model predicts at a time.
        step: of the training.
    """
    name, split = _held_out_split(dataset)
    images = _sample(split, augment)
    angles = model.angles
    copies = np.asarray(rotate_batch(images, angles)[0])
    enough = len(images) >= FEWEST
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

    seen = dataset.levels(images)
    probabilities = predict(copies)
    tiles = most_ambiguous(probabilities, angles)
    file = f"ambiguous-{step:08d}.png"
    shown = dataset.displayed(images)
    write_image_strip(session.folder, file, shown[[tile["image"] for tile in tiles]])
    session.event(
        "suitability",
        step=step,
        split=name,
        images=len(images),
        angles=list(angles),
        **per_image_statistics(probabilities, angles),
        file=file,
        tile=int(images.shape[2]),
        tiles=tiles,
        giveaways=image_shortcuts(seen, dataset.levels(copies), angles) if enough else {},
        reliance=network_shortcuts(predict, copies, angles, dataset.levels(copies)) if enough else {},
    )


def _held_out_split(dataset: Dataset) -> tuple[str, Split]:
    """Images that were not trained on, with the name of their split; training images if there are too few."""
    for name, split in (("validation", dataset.validation), ("test", dataset.test)):
        if split is not None and len(split) >= FEWEST:
            return name, split
    return "training", dataset.train


def _sample(split: Split, augment: Augment) -> np.ndarray:
    """Evenly spaced images of a split, cropped as in evaluation: (N, H, W, C)."""
    first = center_crop(split.images(np.arange(1)), augment, split.values)
    count = min(len(split), MAX_IMAGES, max(FEWEST, MAX_BYTES // first.nbytes))
    return center_crop(split.images(np.arange(count) * len(split) // count), augment, split.values)
