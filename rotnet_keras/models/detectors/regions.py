"""What detectors share whose head classifies regions of an image: Fast R-CNN and Faster R-CNN."""

from typing import Any

from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.models.backbones.registry import layer_outputs, with_input_shape
from rotnet_keras.models.detectors.anchor_matching import match, sample_balanced, smooth_l1
from rotnet_keras.models.detectors.base import Detector, non_max_suppression
from rotnet_keras.models.detectors.boxes import clip_boxes, decode_boxes, encode_boxes, roi_align

layers, ops = keras.layers, keras.ops


class RegionDetector(Detector):
    """A detector whose head reads regions of a feature map by RoI align, classifies them and corrects their boxes.

    Attributes:
        head: from regions (N, cells, cells, C) to the logits of the classes and the offsets of the boxes.
        cells: height and width of a region as it is read.
        stride: pixels of the image per cell of the map.
    """

    head: keras.Model
    cells: int
    stride: float

    # The regions that are sampled per image, the largest share of objects among them, and the overlap from which on
    # they are objects, and from which on the others are background.
    REGIONS, REGION_SHARE, REGION_POSITIVE, REGION_BACKGROUND = 128, 0.25, 0.5, 0.0

    def _head(self, rest: keras.Model, classes: int) -> keras.Model:
        """From regions (N, cells, cells, C) to logits (N, K + 1), the last for the background, and offsets (N, 4)."""

        def initializer(deviation: float) -> keras.initializers.Initializer:
            return keras.initializers.RandomNormal(stddev=deviation, seed=self.seed)

        x = rest.output
        logits = layers.Dense(classes + 1, kernel_initializer=initializer(0.01), dtype="float32", name="classes")(x)
        offsets = layers.Dense(4, kernel_initializer=initializer(0.001), dtype="float32", name="offsets")(x)
        return keras.Model(rest.input, [logits, offsets], name="head")

    def _classify_regions(
        self, head: keras.Model, maps: Any, regions: Any, training: bool | None = None
    ) -> tuple[Any, Any]:
        """The head's logits (N, R, K + 1), the last for the background, and offsets (N, R, 4) of regions (N, R, 4)."""
        count, channels = regions.shape[1], maps.shape[3]
        features = roi_align(maps, regions, self.cells, self.stride)
        features = ops.reshape(features, (-1, self.cells, self.cells, channels))
        logits, offsets = head(features, training=training)
        return ops.reshape(logits, (-1, count, logits.shape[-1])), ops.reshape(offsets, (-1, count, 4))

    def _detections(self, head: keras.Model, maps: Any, regions: Any) -> dict[str, Any]:
        """The boxes, classes and confidences of regions (N, R, 4) after NMS."""
        logits, offsets = self._classify_regions(head, maps, regions)
        # Rows without a region have no area, and no class.
        valid = ops.cast(ops.any(regions[..., 2:] > regions[..., :2], axis=-1, keepdims=True), "float32")
        probabilities = ops.softmax(logits, axis=-1)[..., :-1] * valid
        return non_max_suppression(clip_boxes(decode_boxes(regions, offsets), self.side), probabilities)

    def _head_loss(
        self,
        maps: tf.Tensor,
        regions: tf.Tensor,
        boxes: tf.Tensor,
        classes: tf.Tensor,
        draws: tf.Tensor,
        training: bool,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The mean over the sampled regions of class and box loss, the correct ones, and their number, each (N,)."""
        matches = match(regions, boxes)
        positive = matches.ious >= self.REGION_POSITIVE
        negative = ~positive & (matches.ious >= self.REGION_BACKGROUND)
        sampled = sample_balanced(positive, negative, self.REGIONS, self.REGION_SHARE, draws)
        # A fixed number of rows per image; rows that were not sampled have the weight 0.
        weights, rows = tf.math.top_k(tf.cast(sampled, tf.float32), min(self.REGIONS, regions.shape[1]))

        def at_rows(values: tf.Tensor) -> tf.Tensor:
            return tf.gather(values, rows, batch_dims=1)

        regions, objects, positive = at_rows(regions), at_rows(matches.objects), at_rows(positive)
        logits, offsets = self._classify_regions(self.head, maps, regions, training)
        background = logits.shape[-1] - 1
        labels = tf.where(positive, tf.gather(classes, objects, batch_dims=1), background)
        class_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        targets = encode_boxes(regions, tf.gather(boxes, objects, batch_dims=1))
        box_loss = tf.where(positive, smooth_l1(offsets - targets, 1.0), 0.0)
        total = tf.reduce_sum(weights, axis=1)
        loss = tf.math.divide_no_nan(tf.reduce_sum(weights * (class_loss + box_loss), axis=1), total)
        correct = weights * tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32) == labels, tf.float32)
        return loss, tf.reduce_sum(correct, axis=1), total


def split_backbone(
    backbone: keras.Model, tap: str, after: str, cells: int | None, side: int
) -> tuple[keras.Model, keras.Model]:
    """Split a backbone into a trunk, up to a tap, and the layers behind another one.

    Args:
        backbone: a functional model.
        tap: the last layer of the trunk.
        after: the layer whose map the second model takes.
        cells: the side of the map that the second model takes; by default that of the map of `after`.
        side: of the trunk's images in pixels.

    Returns:
        The trunk, for images (N, side, side, 3), and the rest, which ends in vectors.

    Raises:
        DataError: the backbone has no such layers, or their maps do not fit.
    """
    outputs = layer_outputs(backbone, [tap, after])
    tap_shape, after_shape = outputs[tap].shape, outputs[after].shape
    if len(after_shape) != 4 or after_shape[1] != after_shape[2]:
        raise DataError(f"after: expected a layer with a square map, which regions replace; {after!r} has none")
    if len(tap_shape) != 4 or tap_shape[3] != after_shape[3]:
        raise DataError(
            f"taps: expected a layer with a map of {after_shape[3]} channels, as {after!r} has; {tap!r} has none"
        )
    trunk = keras.Model(backbone.input, outputs[tap], name=backbone.name)
    if outputs[after] is backbone.output:
        inputs = keras.Input(after_shape[1:])
        rest = keras.Model(inputs, layers.Identity()(inputs))
    else:
        rest = keras.Model(outputs[after], backbone.output)
    rest = with_input_shape(rest, (cells or after_shape[1], cells or after_shape[2], after_shape[3]))
    if len(rest.output.shape) == 4:
        rest = keras.Model(rest.input, layers.GlobalAveragePooling2D(name="mean")(rest.output))
    return with_input_shape(trunk, (side, side, 3)), rest
