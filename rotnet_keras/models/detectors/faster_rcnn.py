"""Faster R-CNN on any backbone."""

from typing import Any

from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.models import stateless_random
from rotnet_keras.models.backbones.registry import layer_outputs, with_input_shape
from rotnet_keras.models.detectors.anchor_matching import match, sample_balanced, smooth_l1
from rotnet_keras.models.detectors.base import BatchNormMode, Detector, non_max_suppression, prepare_trunk
from rotnet_keras.models.detectors.boxes import RATIOS, clip_boxes, decode_boxes, encode_boxes, make_anchors, roi_align
from rotnet_keras.models.fused_batch_norm import with_stock_layers
from rotnet_keras.models.step_dropout import with_dropout

layers, ops = keras.layers, keras.ops


class FasterRCNN(Detector):
    """Faster R-CNN (Ren, He, Girshick and Sun, NeurIPS 2015): an RPN proposes regions, a head classifies them.

    The head is made of the backbone's layers behind the map that regions are read from: AlexNet's fc6 and fc7, or a
    ResNet's last stage. Unlike in the original, a region has one box for all classes, and is read by RoI align.

    Args:
        backbone: a functional model from pixels; it is rebuilt for the image side.
        tap: the layer whose map regions are proposed on and read from.
        after: the head consists of the layers behind this one. The layers between `tap` and `after`, such as a pool,
            are replaced by RoI align.
        cells: height and width of a region as it is read; by default those of the map of `after`.
        classes: K, without the background.
        side: of the images in pixels.
        objects: the most objects in an image.
        seed: of the initial weights and of the samples.
        norm: what the backbone's batch normalisation does in training.
        dropout: rate of the dropout behind the head's dense layers from the backbone.

    Raises:
        DataError: the backbone has no such layers, or their maps do not fit.
    """

    # The sizes of anchors as shares of the image's side, and the channels of the RPN.
    SIZES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
    CHANNELS = 256
    # The proposals before and after NMS, and its overlap.
    PRE_NMS, POST_NMS, PROPOSAL_IOU = 2000, 300, 0.7
    # The anchors and the regions that are sampled per image, the largest share of objects among them, and the overlaps
    # above which they are objects and below which they are background.
    ANCHORS, ANCHOR_SHARE, ANCHOR_POSITIVE, ANCHOR_NEGATIVE = 256, 0.5, 0.7, 0.3
    REGIONS, REGION_SHARE, REGION_POSITIVE = 128, 0.25, 0.5

    def __init__(
        self,
        backbone: keras.Model,
        tap: str,
        after: str,
        cells: int | None,
        classes: int,
        side: int,
        objects: int,
        seed: int,
        norm: BatchNormMode = "fixed",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(side, objects, seed)
        trunk, rest = split_backbone(backbone, tap, after, cells, side)
        trunk, rest = prepare_trunk(trunk, norm), prepare_trunk(with_dropout(rest, dropout), norm)
        self.stride = side / trunk.output.shape[1]
        sizes = [share * side for share in self.SIZES]
        self.anchors = make_anchors(trunk.output.shape[1:3], self.stride, sizes, RATIOS)
        self.anchor_boxes = self.anchors.boxes()
        self.proposal_nms = self._proposal_nms()
        self.rpn = self._build_rpn(trunk)
        self.head = self._head(rest, classes)
        self.cells = rest.input.shape[1]
        self.inference_model = self._inference_model(self.rpn, self.head)

    @property
    def networks(self) -> list[keras.Model]:
        """The RPN with the backbone up to the tap, and the head."""
        return [self.rpn, self.head]

    @property
    def passes_per_image(self) -> list[int]:
        """One image for the RPN, and its sampled regions for the head."""
        return [1, self.REGIONS]

    @property
    def new_variables(self) -> list[keras.Variable]:
        """The trained variables that are not the backbone's."""
        names = {self.rpn: ("proposals", "objectness", "anchor_offsets"), self.head: ("classes", "offsets")}
        return [v for network, added in names.items() for name in added for v in network.get_layer(name).variables]

    def exported(self) -> keras.Model:
        """A copy of `inference_model` for export: float32, made of built-in layers and keras-cv's."""
        return self._inference_model(with_stock_layers(self.rpn), with_stock_layers(self.head))

    def _build_rpn(self, trunk: keras.Model) -> keras.Model:
        """From pixels to a feature map, the objectness logits of the anchors, and the offsets of their boxes."""
        initializer = keras.initializers.RandomNormal(stddev=0.01, seed=self.seed)
        x = layers.Conv2D(self.CHANNELS, 3, padding="same", activation="relu", name="proposals")(trunk.output)
        options = {"kernel_initializer": initializer, "dtype": "float32"}
        objectness = layers.Conv2D(len(self.anchors.shapes), 1, name="objectness", **options)(x)
        offsets = layers.Conv2D(4 * len(self.anchors.shapes), 1, name="anchor_offsets", **options)(x)
        return keras.Model(trunk.input, [trunk.output, objectness, offsets], name="proposer")

    def _proposal_nms(self) -> keras.layers.Layer:
        """NMS of proposals. keras-cv's ROIGenerator does the same, but fails where layers compute in 16 bits."""
        from keras_cv.layers import NonMaxSuppression

        return NonMaxSuppression(
            "yxyx",
            from_logits=False,
            iou_threshold=self.PROPOSAL_IOU,
            confidence_threshold=0.0,
            max_detections=min(len(self.anchors), self.POST_NMS),
            dtype="float32",
            name="regions",
        )

    def _regions(self, objectness: Any, offsets: Any) -> Any:
        """The proposals (N, R, 4): the boxes with the highest objectness after NMS."""
        boxes = clip_boxes(self.anchors.decode(ops.stop_gradient(offsets)), self.side)
        scores = ops.reshape(ops.stop_gradient(ops.sigmoid(objectness)), (-1, len(self.anchors)))
        scores, best = ops.top_k(scores, min(len(self.anchors), self.PRE_NMS))
        boxes = ops.take_along_axis(boxes, best[..., None], axis=1)
        return self.proposal_nms(box_prediction=boxes, class_prediction=scores[..., None])["boxes"]

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

    def _inference_model(self, rpn: keras.Model, head: keras.Model) -> keras.Model:
        pixels = keras.Input((self.side, self.side, 3), name="pixels")
        maps, objectness, anchor_offsets = rpn(pixels)
        regions = self._regions(objectness, anchor_offsets)
        logits, offsets = self._classify_regions(head, maps, regions)
        # Rows without a region have no area, and no class.
        valid = ops.cast(ops.any(regions[..., 2:] > regions[..., :2], axis=-1, keepdims=True), "float32")
        probabilities = ops.softmax(logits, axis=-1)[..., :-1] * valid
        return keras.Model(
            pixels,
            non_max_suppression(clip_boxes(decode_boxes(regions, offsets), self.side), probabilities),
            name="detector",
        )

    def call(self, inputs: tuple[tf.Tensor, ...], training: bool = False) -> tf.Tensor:
        """For each image its loss, its correctly classified regions, and its sampled regions: (N, 3)."""
        pixels, boxes, classes, positions = inputs
        maps, objectness, offsets = self.rpn(pixels, training=training)
        draws = stateless_random.uniform(
            self.step_seed(), tf.shape(pixels)[0], len(self.anchors) + self.POST_NMS + self.objects, positions
        )
        rpn_loss = self._rpn_loss(objectness, offsets, boxes, draws[:, : len(self.anchors)])
        # The objects' own boxes are regions too, because at first hardly any proposal matches an object.
        regions = tf.concat([self._regions(objectness, offsets), boxes], axis=1)
        head_loss, correct, sampled = self._head_loss(
            maps, tf.stop_gradient(regions), boxes, classes, draws[:, len(self.anchors) :], training
        )
        return tf.stack([rpn_loss + head_loss, correct, sampled], axis=1)

    def _rpn_loss(self, objectness: tf.Tensor, offsets: tf.Tensor, boxes: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """The mean over the sampled anchors of class loss and box loss: (N,)."""
        anchors = tf.tile(self.anchor_boxes[None], (tf.shape(boxes)[0], 1, 1))
        matches = match(anchors, boxes)
        positive = (matches.ious >= self.ANCHOR_POSITIVE) | matches.best_anchors
        negative = ~positive & (matches.ious < self.ANCHOR_NEGATIVE)
        sampled = tf.cast(sample_balanced(positive, negative, self.ANCHORS, self.ANCHOR_SHARE, draws), tf.float32)
        labels = tf.cast(positive, tf.float32)
        class_loss = tf.nn.sigmoid_cross_entropy_with_logits(labels, tf.reshape(objectness, tf.shape(labels)))
        targets = encode_boxes(anchors, tf.gather(boxes, matches.objects, batch_dims=1))
        box_loss = smooth_l1(tf.reshape(offsets, tf.shape(targets)) - targets, 1.0) * labels
        return tf.math.divide_no_nan(
            tf.reduce_sum(sampled * (class_loss + box_loss), axis=1), tf.reduce_sum(sampled, axis=1)
        )

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
        negative = ~positive & (matches.ious >= 0)
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
