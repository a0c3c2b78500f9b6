"""Translations beside rotations: a second pretext task, which tells images of one class from others better.

Hendrycks et al., "Using self-supervised learning can improve model robustness and uncertainty" (NeurIPS 2019), after
Golan and El-Yaniv, "Deep anomaly detection using geometric transformations" (NeurIPS 2018): every copy of an image is
shifted along both axes before it is rotated, and the model says which way.
"""

from typing import Any

from rotnet_keras.config.sections import Augment, Rotation
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.export import joined
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.heads import build_head
from rotnet_keras.models.rotation import rotate_batch, rotate_one_each
from rotnet_keras.models.rotnet import RotNet
from rotnet_keras.models.stateless_random import uniform

layers = keras.layers

# The file that a run exports.
TRANSFORMATIONS = "transformations.keras"
# Directions of a shift along an axis; the label of one is its index.
DIRECTIONS = (-1, 0, 1)
# All shifts, as labels of (vertical, horizontal) directions.
SHIFTS = [(y, x) for y in range(len(DIRECTIONS)) for x in range(len(DIRECTIONS))]


def shift(images: tf.Tensor, pixels: int, vertical: int, horizontal: int) -> tf.Tensor:
    """Shift images, and fill what becomes empty with their mirror image at the border.

    Args:
        images: (N, H, W, C) of any dtype.
        pixels: the length of the shift, less than H and W.
        vertical: label of the direction: 0 up, 1 not at all, 2 down.
        horizontal: label of the direction: 0 left, 1 not at all, 2 right.

    Returns:
        (N, H, W, C) in the dtype of `images`.

    Example:
        >>> import numpy as np
        >>> shift(np.arange(4).reshape(1, 1, 4, 1), 0, 1, 1).numpy().ravel().tolist()
        [0, 1, 2, 3]
    """
    images = tf.convert_to_tensor(images)
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]], "REFLECT")
    top, left = (pixels * (1 - DIRECTIONS[label]) for label in (vertical, horizontal))
    return padded[:, top : top + height, left : left + width]


def shift_each(images: tf.Tensor, pixels: int, labels: tf.Tensor) -> tf.Tensor:
    """Shift every image its own way.

    Args:
        images: (N, H, W, C) of any dtype.
        pixels: the length of the shifts.
        labels: (N,) int32, indices into `SHIFTS`.
    """
    copies = tf.stack([shift(images, pixels, *directions) for directions in SHIFTS], axis=1)
    return tf.gather(copies, labels, batch_dims=1)


class TranslationRotNet(RotNet):
    """A RotNet that also predicts by which way each copy was shifted before it was rotated.

    The loss is the sum of three cross-entropies: of the angle, of the vertical and of the horizontal direction. The
    metrics and the evaluation are those of the angles, of images that are not shifted.

    Args:
        backbone: a model from pixels (N, S, S, C) to a feature map.
        rotation: the recipe's section, with a `translation` and right angles.
        augment: the recipe's section, for colour jitter in training.
        seed: of the drawn shifts, angles and the jitter, together with the step.
        synchronized: batch normalisation of the hidden layers uses the statistics of the batch of all replicas.
    """

    def __init__(
        self,
        backbone: keras.Model,
        rotation: Rotation,
        augment: Augment | None = None,
        seed: int = 0,
        synchronized: bool = False,
    ) -> None:
        super().__init__(backbone, rotation.angles, rotation.copies, rotation.hidden, augment, seed, synchronized)
        self.translation = rotation.translation
        shape, directions = backbone.output.shape[1:], 2 * len(DIRECTIONS)
        head = build_head("pool", shape, directions, "translation", hidden=rotation.hidden)
        self.translation_head = with_fused_batch_norm(head, synchronized=synchronized)

    @property
    def networks(self) -> list[keras.Model]:
        """The backbone, the head of the angles, and the head of the directions."""
        return [*super().networks, self.translation_head]

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The logits of the K angles, (N, K); in training those of both directions beside them, (N, K + 6)."""
        features = self.backbone(inputs, training=training)
        logits = self.head(features, training=training)
        return tf.concat([logits, self.translation_head(features, training=True)], axis=1) if training else logits

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Shifted and rotated copies, their targets (angle, vertical, horizontal), (N, 3) int32, and any weights."""
        pixels, _, weights = keras.utils.unpack_x_y_sample_weight(data)
        images, seed = self.jittered(pixels, positions), self.step_seed()
        count, angles = tf.shape(images)[0], [self.angles] if self.copies == "one" else [(a,) for a in self.angles]
        drawn = uniform(tf.random.fold_in(seed, 2), count, len(angles), positions)
        shifts = tf.cast(len(SHIFTS) * drawn, tf.int32)
        inputs, targets = [], []
        for label, some in enumerate(angles):
            shifted = shift_each(images, self.translation, shifts[:, label])
            if self.copies == "one":
                rotated, angle = rotate_one_each(shifted, seed, some, positions)
            else:
                rotated, angle = rotate_batch(shifted, some)[0], tf.fill([count], label)
            inputs.append(rotated)
            targets.append(tf.concat([angle[:, None], tf.gather(SHIFTS, shifts[:, label])], axis=1))
        tiled = () if weights is None else (tf.tile(weights, [len(angles)]),)
        return tf.concat(inputs, axis=0), tf.concat(targets, axis=0), *tiled

    def compute_loss(
        self,
        x: tf.Tensor = None,
        y: tf.Tensor = None,
        y_pred: tf.Tensor = None,
        sample_weight: tf.Tensor | None = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The sum of the three losses in training; the loss of the angles alone in evaluation."""
        if not training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        logits = tf.split(y_pred, [self.classes, len(DIRECTIONS), len(DIRECTIONS)], axis=1)
        loss = super().compute_loss(x, y[:, 0], logits[0], sample_weight, training)
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return loss + sum(cross_entropy(y[:, task], logits[task], sample_weight) for task in (1, 2))

    def compute_metrics(
        self, x: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """The metrics of the angles."""
        if len(y.shape) == 2:
            y, y_pred = y[:, 0], y_pred[:, : self.classes]
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def exported(self) -> keras.Model:
        """A model of built-in layers from pixels (N, S, S, C) to probabilities (N, K + 6).

        They are those of the K angles, of the vertical and of the horizontal direction, side by side.
        """
        features = keras.Input(self.backbone.output.shape[1:], name="features")
        angles = layers.Softmax(name="angle")(self.head(features))
        directions = layers.Reshape((2, len(DIRECTIONS)), name="axes")(self.translation_head(features))
        flat = layers.Flatten(name="directions")(layers.Softmax(name="direction")(directions))
        both = layers.Concatenate(name="probabilities")([angles, flat])
        return joined(self.backbone, keras.Model(features, both, name="heads"), "transformations")
