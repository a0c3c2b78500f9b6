"""Faster R-CNN on any backbone."""

from typing import Any

from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.models import stateless_random
from rotnet_keras.models.backbones.registry import layer_outputs, with_input_shape
from rotnet_keras.models.detectors.anchor_matching import match, sample_balanced, smooth_l1
from rotnet_keras.models.detectors.base import BatchNormMode, Detector, non_max_suppression, prepare_trunk
from rotnet_keras.models.detectors.boxes import RATIOS, anchors_on, clip_boxes, decode_boxes, encode_boxes, roi_align
from rotnet_keras.models.fused_batch_norm import with_stock_layers

layers, ops = keras.layers, keras.ops


class FasterRCNN(Detector):
    """Faster R-CNN (Ren, He, Girshick and Sun, NeurIPS 2015): a network proposes regions, another tells what they are.

    The second is what follows in the backbone on the map that regions are read from: AlexNet's fc6 and fc7, a ResNet's
    last stage. Unlike in the original, a region has one box for all classes, and is read by RoIAlign.

    Args:
        backbone: goes from pixels of its own size.
        tap: the map that regions are proposed and read from.
        after: the layer whose followers tell what a region is; what lies between it and `tap`, such as a pool, is
            replaced by the reading of regions.
        cells: height and width of a region as it is read; those of the backbone's map after `after` by default.
        classes: without the background.
        norm: what the backbone's batch normalisation does in training.

    Raises:
        DataError: the backbone has no such layers, or nothing to read there.
    """

    # Anchors are so large, in shares of a canvas's side.
    SIZES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
    CHANNELS = 256
    # Regions that are proposed, before and after those that overlap too much are left out, and the overlap.
    BEFORE, AFTER, PROPOSAL_OVERLAP = 2000, 300, 0.7
    # Anchors and regions of a picture that a step counts, the most of them that may be objects, and when they are.
    ANCHORS, ANCHOR_SHARE, ANCHOR_OBJECT, ANCHOR_NOTHING = 256, 0.5, 0.7, 0.3
    REGIONS, REGION_SHARE, REGION_OBJECT = 128, 0.25, 0.5

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
    ) -> None:
        super().__init__(side, objects, seed)
        trunk, rest = (prepare_trunk(part, norm) for part in cut_in_two(backbone, tap, after, cells, side))
        self.stride = side / trunk.output.shape[1]
        sizes = [share * side for share in self.SIZES]
        self.anchors = anchors_on(trunk.output.shape[1:3], self.stride, sizes, RATIOS)
        self.all_anchors = self.anchors.boxes()
        self.choose = self._chooser()
        self.proposer = self._proposer(trunk)
        self.head = self._head(rest, classes)
        self.cells = rest.input.shape[1]
        self.inference_model = self._inference_model(self.proposer, self.head)

    @property
    def networks(self) -> list[keras.Model]:
        """What proposes regions, and what tells what they are."""
        return [self.proposer, self.head]

    @property
    def passes_per_image(self) -> list[int]:
        """A picture to the one, its regions to the other."""
        return [1, self.REGIONS]

    @property
    def new_variables(self) -> list[keras.Variable]:
        """What is trained and not the backbone's."""
        names = {self.proposer: ("proposals", "objectness", "anchor_offsets"), self.head: ("classes", "offsets")}
        return [v for network, mine in names.items() for name in mine for v in network.get_layer(name).variables]

    def exported(self) -> keras.Model:
        """`inference_model` with weights of its own, float32, of built-in layers and keras-cv's."""
        return self._inference_model(with_stock_layers(self.proposer), with_stock_layers(self.head))

    def _proposer(self, trunk: keras.Model) -> keras.Model:
        """From pixels to a map, and for each anchor how sure it is of an object, and the offsets of that."""
        start = keras.initializers.RandomNormal(stddev=0.01, seed=self.seed)
        x = layers.Conv2D(self.CHANNELS, 3, padding="same", activation="relu", name="proposals")(trunk.output)
        exact = {"kernel_initializer": start, "dtype": "float32"}
        sure = layers.Conv2D(len(self.anchors.shapes), 1, name="objectness", **exact)(x)
        offsets = layers.Conv2D(4 * len(self.anchors.shapes), 1, name="anchor_offsets", **exact)(x)
        return keras.Model(trunk.input, [trunk.output, sure, offsets], name="proposer")

    def _chooser(self) -> keras.layers.Layer:
        """keras-cv's ROIGenerator does the same, but not where layers compute in 16 bits by default."""
        from keras_cv.layers import NonMaxSuppression

        return NonMaxSuppression(
            "yxyx",
            from_logits=False,
            iou_threshold=self.PROPOSAL_OVERLAP,
            confidence_threshold=0.0,
            max_detections=min(len(self.anchors), self.AFTER),
            dtype="float32",
            name="regions",
        )

    def _regions(self, sure: Any, offsets: Any) -> Any:
        """(N, R, 4): the surest boxes of which none overlaps a surer one too much."""
        boxes = clip_boxes(self.anchors.decode(ops.stop_gradient(offsets)), self.side)
        scores = ops.reshape(ops.stop_gradient(ops.sigmoid(sure)), (-1, len(self.anchors)))
        scores, surest = ops.top_k(scores, min(len(self.anchors), self.BEFORE))
        boxes = ops.take_along_axis(boxes, surest[..., None], axis=1)
        return self.choose(box_prediction=boxes, class_prediction=scores[..., None])["boxes"]

    def _head(self, rest: keras.Model, classes: int) -> keras.Model:
        """From regions read from the map to logits (N, K + 1), background last, and offsets (N, 4)."""

        def start(deviation: float) -> keras.initializers.Initializer:
            return keras.initializers.RandomNormal(stddev=deviation, seed=self.seed)

        logits = layers.Dense(classes + 1, kernel_initializer=start(0.01), dtype="float32", name="classes")(rest.output)
        offsets = layers.Dense(4, kernel_initializer=start(0.001), dtype="float32", name="offsets")(rest.output)
        return keras.Model(rest.input, [logits, offsets], name="head")

    def _answers(self, head: keras.Model, maps: Any, regions: Any, training: bool | None = None) -> tuple[Any, Any]:
        """Logits (N, R, K + 1), background last, and offsets (N, R, 4)."""
        count, channels = regions.shape[1], maps.shape[3]
        read = ops.reshape(roi_align(maps, regions, self.cells, self.stride), (-1, self.cells, self.cells, channels))
        logits, offsets = head(read, training=training)
        return ops.reshape(logits, (-1, count, logits.shape[-1])), ops.reshape(offsets, (-1, count, 4))

    def _inference_model(self, proposer: keras.Model, head: keras.Model) -> keras.Model:
        pixels = keras.Input((self.side, self.side, 3), name="pixels")
        maps, sure, anchor_offsets = proposer(pixels)
        regions = self._regions(sure, anchor_offsets)
        logits, offsets = self._answers(head, maps, regions)
        # What is no region has no class.
        there = ops.cast(ops.any(regions[..., 2:] > regions[..., :2], axis=-1, keepdims=True), "float32")
        probabilities = ops.softmax(logits, axis=-1)[..., :-1] * there
        return keras.Model(
            pixels,
            non_max_suppression(clip_boxes(decode_boxes(regions, offsets), self.side), probabilities),
            name="detector",
        )

    def call(self, inputs: tuple[tf.Tensor, ...], training: bool = False) -> tf.Tensor:
        """For each canvas its loss, how many of its regions' classes are right, and of how many: (N, 3)."""
        pixels, boxes, classes, positions = inputs
        maps, sure, offsets = self.proposer(pixels, training=training)
        draw = stateless_random.uniform(
            self.step_seed(), tf.shape(pixels)[0], len(self.anchors) + self.AFTER + self.objects, positions
        )
        proposing = self._rpn_loss(sure, offsets, boxes, draw[:, : len(self.anchors)])
        # The objects themselves are regions too: in the beginning no others have any.
        regions = tf.concat([self._regions(sure, offsets), boxes], axis=1)
        telling, right, counted = self._head_loss(
            maps, tf.stop_gradient(regions), boxes, classes, draw[:, len(self.anchors) :], training
        )
        return tf.stack([proposing + telling, right, counted], axis=1)

    def _rpn_loss(self, sure: tf.Tensor, offsets: tf.Tensor, boxes: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        anchors = tf.tile(self.all_anchors[None], (tf.shape(boxes)[0], 1, 1))
        matches = match(anchors, boxes)
        right = (matches.overlaps >= self.ANCHOR_OBJECT) | matches.best_anchors
        wrong = ~right & (matches.overlaps < self.ANCHOR_NOTHING)
        counted = tf.cast(sample_balanced(right, wrong, self.ANCHORS, self.ANCHOR_SHARE, draw), tf.float32)
        truth = tf.cast(right, tf.float32)
        surprise = tf.nn.sigmoid_cross_entropy_with_logits(truth, tf.reshape(sure, tf.shape(truth)))
        targets = encode_boxes(anchors, tf.gather(boxes, matches.objects, batch_dims=1))
        misses = smooth_l1(tf.reshape(offsets, tf.shape(targets)) - targets, 1.0) * truth
        return tf.math.divide_no_nan(
            tf.reduce_sum(counted * (surprise + misses), axis=1), tf.reduce_sum(counted, axis=1)
        )

    def _head_loss(
        self,
        maps: tf.Tensor,
        regions: tf.Tensor,
        boxes: tf.Tensor,
        classes: tf.Tensor,
        draw: tf.Tensor,
        training: bool,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        matches = match(regions, boxes)
        right = matches.overlaps >= self.REGION_OBJECT
        wrong = ~right & (matches.overlaps >= 0)
        counted = sample_balanced(right, wrong, self.REGIONS, self.REGION_SHARE, draw)
        # So many places for each picture; those without a counted region weigh nothing.
        weights, places = tf.math.top_k(tf.cast(counted, tf.float32), min(self.REGIONS, regions.shape[1]))

        def at(values: tf.Tensor) -> tf.Tensor:
            return tf.gather(values, places, batch_dims=1)

        regions, objects, right = at(regions), at(matches.objects), at(right)
        logits, offsets = self._answers(self.head, maps, regions, training)
        background = logits.shape[-1] - 1
        truth = tf.where(right, tf.gather(classes, objects, batch_dims=1), background)
        surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits)
        targets = encode_boxes(regions, tf.gather(boxes, objects, batch_dims=1))
        misses = tf.where(right, smooth_l1(offsets - targets, 1.0), 0.0)
        total = tf.reduce_sum(weights, axis=1)
        loss = tf.math.divide_no_nan(tf.reduce_sum(weights * (surprise + misses), axis=1), total)
        hits = weights * tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32) == truth, tf.float32)
        return loss, tf.reduce_sum(hits, axis=1), total


def cut_in_two(
    backbone: keras.Model, tap: str, after: str, cells: int | None, side: int
) -> tuple[keras.Model, keras.Model]:
    """A backbone up to a tap, for canvases, and what follows on a layer, for maps of so many cells, or as many as now.

    Raises:
        DataError: it has no such layers, or they do not go together.
    """
    outputs = layer_outputs(backbone, [tap, after])
    there, then = outputs[tap].shape, outputs[after].shape
    if len(then) != 4 or then[1] != then[2]:
        raise DataError(f"after: regions take the place of a square map, and {after!r} gives none")
    if len(there) != 4 or there[3] != then[3]:
        raise DataError(f"taps: regions take the place of a map of {then[3]} channels, and {tap!r} gives another")
    trunk = keras.Model(backbone.input, outputs[tap], name=backbone.name)
    if outputs[after] is backbone.output:
        inputs = keras.Input(then[1:])
        rest = keras.Model(inputs, layers.Identity()(inputs))
    else:
        rest = keras.Model(outputs[after], backbone.output)
    rest = with_input_shape(rest, (cells or then[1], cells or then[2], then[3]))
    if len(rest.output.shape) == 4:
        rest = keras.Model(rest.input, layers.GlobalAveragePooling2D(name="mean")(rest.output))
    return with_input_shape(trunk, (side, side, 3)), rest
