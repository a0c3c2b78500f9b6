"""A sample of validation images after each epoch: their predicted rotations, attention, and features in the plane."""

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from rotnet_keras.config.sections import Augment
from rotnet_keras.data.batches import evaluation_batches
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.evaluation.attention import scaled_to_one
from rotnet_keras.evaluation.projection import nearest, principal_plane, unit_features
from rotnet_keras.models.backbones import registry
from rotnet_keras.models.rotation import rotate_batch
from rotnet_keras.models.rotnet import RotNet
from rotnet_keras.reports.projections import (
    IMAGES_FILE,
    Projection,
    labels_of,
    read_projection,
    small_maps,
    write_projection,
    write_sample_images,
)
from rotnet_keras.reports.samples import FIXED_SAMPLES, SEARCHED_SAMPLES, write_samples
from rotnet_keras.runs.exports.backbone_file import choose_tap
from rotnet_keras.training.session import Session

# Attention maps sum the activations to this power: the paper's of a middle layer (figure 3).
POWER = 2.0
NEIGHBOURS = 5


class SampleImages:
    """Writes what a model makes of a fixed sample of validation images, each time with its present weights.

    One pass of the rotated copies through the network gives the predictions, the attention maps and the features.

    Args:
        session: of the run.
        dataset: with validation images.
        model: in training or not. It is not changed.
        augment: how images are cropped.
        batch: images per batch.
    """

    def __init__(self, session: Session, dataset: Dataset, model: RotNet, augment: Augment, batch: int) -> None:
        assert dataset.validation is not None
        self._session, self._dataset = session, dataset
        self._angles = model.angles
        self._sample = _mixed(dataset.validation, FIXED_SAMPLES + SEARCHED_SAMPLES)
        backbone, self._head = model.backbone, model.head
        self._tap = choose_tap([layer.name for layer in backbone.layers], [])
        self._network = keras.Model(
            backbone.input, [registry.layer_outputs(backbone, [self._tap])[self._tap], backbone.output]
        )
        self._batches = evaluation_batches(self._sample, augment, batch=min(batch, len(self._sample)))
        self._compute = tf.function(self._passed, input_signature=[self._batches.element_spec])
        self._images_written = False
        self._previous: np.ndarray | None = None

    def write(self, step: int) -> dict[str, Any]:
        """Write the files of an epoch and the `projection` event; return the fields of the `samples` event."""
        with self._session.timed() as took:
            parts = [keras.tree.map_structure(np.asarray, self._compute(images)) for images in self._batches]
            # The copies of a batch are by angle, then by image: (K, n, ...).
            copies, probabilities, features, attention = (
                None
                if values[0] is None
                else np.concatenate([each.reshape(len(self._angles), -1, *each.shape[1:]) for each in values], axis=1)
                for values in zip(*parts, strict=True)
            )
            assert copies is not None and probabilities is not None and features is not None
            count, run = len(self._sample), self._session.folder
            inputs = self._dataset.displayed(copies.reshape(-1, *copies.shape[2:]))
            labels = np.repeat(np.arange(len(self._angles)), count)
            by_copy = probabilities.reshape(len(labels), -1)
            event = write_samples(run, step, inputs, labels, by_copy, self._angles)
            upright = self._angles.index(0) if 0 in self._angles else 0
            if not self._images_written:
                write_sample_images(run, inputs.reshape(len(self._angles), count, *inputs.shape[1:])[upright])
                self._images_written = True
            if not np.isfinite(features).all():
                self._session.warn(f"step {step}: features of {self._tap} are infinite or NaN, and are not projected")
                return event
            # Threads that wait for each other take several times as long with matrices as small as these.
            with threadpool_limits(1, "blas"):
                projection = self._projected(features[upright], probabilities.swapaxes(0, 1), step)
            maps = None if attention is None else scaled_to_one(small_maps(attention)).swapaxes(0, 1)
            files = write_projection(run, step, projection, maps)
        self._session.event(
            "projection", step=step, tap=self._tap, split="validation", count=count, images=IMAGES_FILE, **files, **took
        )
        return event

    def _passed(self, images: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        """Return the rotated copies (K * N, ...), their probabilities, features and sums of squared activations."""
        copies, _ = rotate_batch(images, self._angles)
        values, last = self._network(copies, training=False)
        probabilities = tf.nn.softmax(tf.cast(self._head(last, training=False), tf.float32))
        values = tf.cast(values, tf.float32)
        attention = tf.reduce_sum(tf.nn.relu(values) ** POWER, axis=-1) if values.shape.rank == 4 else None
        others = list(range(1, values.shape.rank - 1))
        features = tf.reduce_mean(values, others) if others else values
        return copies, probabilities, features, attention

    def _projected(self, features: np.ndarray, probabilities: np.ndarray, step: int) -> Projection:
        features = unit_features(features)
        if self._previous is None:
            self._previous = self._earlier_points(step)
        # As they are read from the file, so that a resumed run goes on with the same points.
        points = np.rint(principal_plane(features, self._previous) * 1000) / 1000
        self._previous = points
        neighbours, similarities = nearest(features, NEIGHBOURS)
        labels = labels_of(self._sample.labels, self._dataset.class_names)
        return Projection(points, labels, list(self._angles), probabilities, neighbours, similarities)

    def _earlier_points(self, step: int) -> np.ndarray | None:
        """Return the points of the epoch before, where this process did not compute them; None if there are none."""
        earlier = [e for e in self._session.earlier if e["kind"] == "projection" and e.get("step", step) < step]
        try:
            points = read_projection(self._session.folder.samples / str(earlier[-1]["file"])).points
        except (IndexError, KeyError, OSError, ValueError):
            return None
        return points if len(points) == len(self._sample) else None


def _mixed(split: Split, count: int) -> Split:
    """Return evenly spaced images of a split in a mixed order: those of a folder are in the order of its classes."""
    spaced = np.linspace(0, len(split) - 1, min(count, len(split))).astype(np.int64)
    return split.subset(np.random.default_rng(0).permutation(spaced))
