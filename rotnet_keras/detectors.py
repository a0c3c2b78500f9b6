"""Networks that find objects, on any backbone, in training: Faster R-CNN, and keras-cv's RetinaNet.

Both train on batches of canvases (N, S, S, 3), the boxes of their objects (N, M, 4) in pixels, and the classes of these
(N, M), `NOTHING` where there are fewer than M.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rotnet_keras import draws
from rotnet_keras.backbones import for_images, outputs_of
from rotnet_keras.box_targets import chosen, match, smooth_l1
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.fused import fused, stock
from rotnet_keras.regions import RATIOS, Anchors, anchors_on, cut, moved, offsets_between, pieces
from rotnet_keras.trained import Trained

layers, ops = keras.layers, keras.ops

NOTHING = -1
# What is told of a picture: so many boxes, each at least so sure; a box less sure of the same class overlaps no more.
MOST_FOUND, LEAST_SURE, OVERLAP = 100, 0.05, 0.3


class Detector(Trained):
    """A network that finds objects, in training.

    Args:
        side: S, pixels of a canvas.
        objects: M, the most that there are on one.

    Attributes:
        finder: the network as others use it, sharing the weights: from pixels (N, S, S, 3) in [0, 255] to "boxes"
            (N, 100, 4), "classes" (N, 100) and "confidence" (N, 100), -1 behind the last of them.
    """

    finder: keras.Model

    def __init__(self, side: int, objects: int, seed: int) -> None:
        super().__init__("detector", seed)
        self.side, self.objects = side, objects
        # Keras would round the boxes to the precision that layers compute in.
        self.autocast = False

    @property
    def fresh(self) -> list[keras.Variable]:
        """What is trained and not the backbone's."""
        raise NotImplementedError

    def exported(self) -> keras.Model:
        """`finder` with weights of its own, float32, of built-in layers and keras-cv's."""
        raise NotImplementedError

    def compile_for(self, optimizer: keras.optimizers.Optimizer, label_smoothing: float) -> None:
        """Compile it with its own losses, which `call` works out."""
        self.compile(optimizer, loss=_first_column, metrics=[RegionAccuracy()])

    def training_inputs(self, data: Any, numbers: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Canvases, boxes and classes; there is nothing else to answer."""
        pixels, boxes, classes = data
        count = tf.shape(pixels)[0]
        numbers = tf.range(count) if numbers is None else numbers
        return (tf.cast(pixels, tf.float32), boxes, classes, numbers), tf.zeros(count)

    def example(self) -> tuple[Any, ...]:
        """What the network is shown of an empty canvas."""
        boxes = tf.zeros((1, self.objects, 4))
        return self.training_inputs(
            (tf.zeros((1, self.side, self.side, 3)), boxes, tf.fill((1, self.objects), NOTHING))
        )

    def loss_of(self, pixels: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> tuple[float, float]:
        """Mean loss and accuracy on some canvases, as in training but with what boxes are counted fixed."""
        found = self.predict_on_batch((pixels.astype(np.float32), boxes, classes, np.arange(len(pixels))))
        losses, right, counted = np.asarray(found).T
        return float(losses.mean()), float(right.sum() / max(1.0, counted.sum()))


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
        fixed: the backbone's batch normalisation stays as it is: its statistics, factors and offsets.

    Raises:
        DataError: the backbone has no such layers, or nothing to read there.
    """

    # Pixels per side of a canvas: an eighth of it and so on.
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
        fixed: bool = True,
    ) -> None:
        super().__init__(side, objects, seed)
        trunk, rest = (for_detection(part, fixed) for part in cut_in_two(backbone, tap, after, cells, side))
        self.stride = side / trunk.output.shape[1]
        sizes = [share * side for share in self.SIZES]
        self.anchors = anchors_on(trunk.output.shape[1:3], self.stride, sizes, RATIOS)
        self.all_anchors = self.anchors.boxes()
        self.choose = self._chooser()
        self.proposer = self._proposer(trunk)
        self.head = self._head(rest, classes)
        self.cells = rest.input.shape[1]
        self.finder = self._finder(self.proposer, self.head)

    @property
    def networks(self) -> list[keras.Model]:
        """What proposes regions, and what tells what they are."""
        return [self.proposer, self.head]

    @property
    def fresh(self) -> list[keras.Variable]:
        """What is trained and not the backbone's."""
        names = {self.proposer: ("proposals", "objectness", "anchor_offsets"), self.head: ("classes", "offsets")}
        return [v for network, mine in names.items() for name in mine for v in network.get_layer(name).variables]

    def exported(self) -> keras.Model:
        """`finder` with weights of its own, float32, of built-in layers and keras-cv's."""
        return self._finder(stock(self.proposer), stock(self.head))

    def _proposer(self, trunk: keras.Model) -> keras.Model:
        """From pixels to a map, and for each anchor how sure it is of an object, and the offsets of that."""
        start = keras.initializers.RandomNormal(stddev=0.01, seed=self.seed)
        x = layers.Conv2D(self.CHANNELS, 3, padding="same", activation="relu", name="proposals")(trunk.output)
        exact = {"kernel_initializer": start, "dtype": "float32"}
        sure = layers.Conv2D(len(self.anchors.shapes), 1, name="objectness", **exact)(x)
        offsets = layers.Conv2D(4 * len(self.anchors.shapes), 1, name="anchor_offsets", **exact)(x)
        return keras.Model(trunk.input, [trunk.output, sure, offsets], name="proposer")

    def _chooser(self) -> keras.layers.Layer:
        from keras_cv.layers import ROIGenerator

        before = min(self.BEFORE, len(self.anchors))
        numbers: dict[str, float] = {}
        for when in ("train", "test"):
            numbers |= {f"pre_nms_topk_{when}": before, f"post_nms_topk_{when}": min(before, self.AFTER)}
            numbers |= {f"nms_iou_threshold_{when}": self.PROPOSAL_OVERLAP}
        return ROIGenerator("yxyx", dtype="float32", name="regions", **numbers)

    def _regions(self, sure: Any, offsets: Any) -> Any:
        """(N, R, 4): the surest boxes of which none overlaps a surer one too much."""
        boxes = cut(self.anchors.moved(ops.stop_gradient(offsets)), self.side)
        return self.choose(boxes, ops.reshape(ops.stop_gradient(ops.sigmoid(sure)), (-1, len(self.anchors))))[0]

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
        read = ops.reshape(pieces(maps, regions, self.cells, self.stride), (-1, self.cells, self.cells, channels))
        logits, offsets = head(read, training=training)
        return ops.reshape(logits, (-1, count, logits.shape[-1])), ops.reshape(offsets, (-1, count, 4))

    def _finder(self, proposer: keras.Model, head: keras.Model) -> keras.Model:
        pixels = keras.Input((self.side, self.side, 3), name="pixels")
        maps, sure, anchor_offsets = proposer(pixels)
        regions = self._regions(sure, anchor_offsets)
        logits, offsets = self._answers(head, maps, regions)
        # What is no region has no class.
        there = ops.cast(ops.any(regions[..., 2:] > regions[..., :2], axis=-1, keepdims=True), "float32")
        probabilities = ops.softmax(logits, axis=-1)[..., :-1] * there
        return keras.Model(pixels, best(cut(moved(regions, offsets), self.side), probabilities), name="detector")

    def call(self, inputs: tuple[tf.Tensor, ...], training: bool = False) -> tf.Tensor:
        """For each canvas its loss, how many of its regions' classes are right, and of how many: (N, 3)."""
        pixels, boxes, classes, numbers = inputs
        maps, sure, offsets = self.proposer(pixels, training=training)
        draw = draws.uniform(
            self.draw_seed(), tf.shape(pixels)[0], len(self.anchors) + self.AFTER + self.objects, numbers
        )
        proposing = self._proposing_loss(sure, offsets, boxes, draw[:, : len(self.anchors)])
        # The objects themselves are regions too: in the beginning no others have any.
        regions = tf.concat([self._regions(sure, offsets), boxes], axis=1)
        telling, right, counted = self._telling_loss(
            maps, tf.stop_gradient(regions), boxes, classes, draw[:, len(self.anchors) :], training
        )
        return tf.stack([proposing + telling, right, counted], axis=1)

    def _proposing_loss(self, sure: tf.Tensor, offsets: tf.Tensor, boxes: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        anchors = tf.tile(self.all_anchors[None], (tf.shape(boxes)[0], 1, 1))
        matches = match(anchors, boxes)
        right = (matches.overlaps >= self.ANCHOR_OBJECT) | matches.favourites
        wrong = ~right & (matches.overlaps < self.ANCHOR_NOTHING)
        counted = tf.cast(chosen(right, wrong, self.ANCHORS, self.ANCHOR_SHARE, draw), tf.float32)
        truth = tf.cast(right, tf.float32)
        surprise = tf.nn.sigmoid_cross_entropy_with_logits(truth, tf.reshape(sure, tf.shape(truth)))
        targets = offsets_between(anchors, tf.gather(boxes, matches.objects, batch_dims=1))
        misses = smooth_l1(tf.reshape(offsets, tf.shape(targets)) - targets, 1.0) * truth
        return tf.math.divide_no_nan(
            tf.reduce_sum(counted * (surprise + misses), axis=1), tf.reduce_sum(counted, axis=1)
        )

    def _telling_loss(
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
        counted = chosen(right, wrong, self.REGIONS, self.REGION_SHARE, draw)
        # So many places for each picture; those without a counted region weigh nothing.
        weights, places = tf.math.top_k(tf.cast(counted, tf.float32), min(self.REGIONS, regions.shape[1]))

        def at(values: tf.Tensor) -> tf.Tensor:
            return tf.gather(values, places, batch_dims=1)

        regions, objects, right = at(regions), at(matches.objects), at(right)
        logits, offsets = self._answers(self.head, maps, regions, training)
        background = logits.shape[-1] - 1
        truth = tf.where(right, tf.gather(classes, objects, batch_dims=1), background)
        surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits)
        targets = offsets_between(regions, tf.gather(boxes, objects, batch_dims=1))
        misses = tf.where(right, smooth_l1(offsets - targets, 1.0), 0.0)
        total = tf.reduce_sum(weights, axis=1)
        loss = tf.math.divide_no_nan(tf.reduce_sum(weights * (surprise + misses), axis=1), total)
        hits = weights * tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32) == truth, tf.float32)
        return loss, tf.reduce_sum(hits, axis=1), total


class RetinaNet(Detector):
    """RetinaNet (Lin, Goyal, Girshick, He and Dollár, ICCV 2017) of keras-cv's parts, on three maps of a backbone.

    Args:
        backbone: goes from pixels of its own size.
        taps: three layers whose maps become half as high and wide from one to the next.
        classes: without the background.
        fixed: the backbone's batch normalisation stays as it is: its statistics, factors and offsets.

    Raises:
        DataError: the backbone has no such layers, or their maps do not.
    """

    # Anchors are so many times as large as a cell, times these; boxes are objects and nothing from these overlaps on.
    CHANNELS, SIZE, OCTAVES = 256, 4.0, (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    OBJECT, WRONG = 0.5, 0.4
    # In the beginning this much is said to be there.
    PRIOR = 0.01

    def __init__(
        self,
        backbone: keras.Model,
        taps: Sequence[str],
        classes: int,
        side: int,
        objects: int,
        seed: int,
        fixed: bool = True,
    ) -> None:
        super().__init__(side, objects, seed)
        self.network, self.levels = self._network(for_detection(pyramid(backbone, taps, side), fixed), classes)
        self.all_anchors = np.concatenate([level.boxes() for level in self.levels])
        self.finder = self._finder(self.network)

    @property
    def networks(self) -> list[keras.Model]:
        """What is trained."""
        return [self.network]

    @property
    def fresh(self) -> list[keras.Variable]:
        """What is trained and not the backbone's."""
        mine = [layer for layer in self.network.layers if layer.name.startswith(("pyramid", "classes", "boxes"))]
        return [v for layer in mine for v in layer.variables]

    def exported(self) -> keras.Model:
        """`finder` with weights of its own, float32, of built-in layers and keras-cv's."""
        return self._finder(stock(self.network))

    def _network(self, trunk: keras.Model, classes: int) -> tuple[keras.Model, list[Anchors]]:
        """From pixels to logits (N, B, K) and, level by level, offsets; the anchors of each level."""
        from keras_cv.models.retinanet import PredictionHead

        maps = self._pyramid(trunk.outputs)
        count = len(RATIOS) * len(self.OCTAVES)
        prior = keras.initializers.Constant(float(-np.log((1 - self.PRIOR) / self.PRIOR)))
        telling = PredictionHead(count * classes, prior, name="classes")
        boxing = PredictionHead(count * 4, keras.initializers.Zeros(), name="boxes")
        levels, logits, offsets = [], [], []
        first = self.side // maps[0].shape[1]
        for level, each in enumerate(maps):
            stride = first * 2**level
            sizes = [self.SIZE * stride * octave for octave in self.OCTAVES]
            levels.append(anchors_on(each.shape[1:3], stride, sizes, RATIOS))
            logits.append(layers.Reshape((-1, classes), dtype="float32")(telling(each)))
            offsets.append(layers.Identity(dtype="float32")(boxing(each)))
        both = layers.Concatenate(axis=1, name="all_classes", dtype="float32")(logits)
        return keras.Model(trunk.input, [both, *offsets], name="retinanet"), levels

    def _pyramid(self, maps: Sequence[keras.KerasTensor]) -> list[keras.KerasTensor]:
        """Five maps of equal depth (Lin et al., "Feature pyramid networks", 2017).

        keras-cv's own layer tells Keras wrong sizes of the last two.
        """

        def convolved(x: keras.KerasTensor, name: str, size: int = 3, strides: int = 1) -> keras.KerasTensor:
            return layers.Conv2D(self.CHANNELS, size, strides, padding="same", name=f"pyramid_{name}")(x)

        across = [convolved(each, f"across{level}", size=1) for level, each in enumerate(maps, 3)]
        for upper in (1, 0):
            across[upper] = layers.Add()([across[upper], layers.UpSampling2D(2)(across[upper + 1])])
        smooth = [convolved(each, f"smooth{level}") for level, each in enumerate(across, 3)]
        sixth = convolved(maps[2], "down6", strides=2)
        return [*smooth, sixth, convolved(layers.ReLU()(sixth), "down7", strides=2)]

    def _finder(self, network: keras.Model) -> keras.Model:
        pixels = keras.Input((self.side, self.side, 3), name="pixels")
        logits, *offsets = network(pixels)
        boxes = ops.concatenate([level.moved(o) for level, o in zip(self.levels, offsets, strict=True)], axis=1)
        return keras.Model(pixels, best(cut(boxes, self.side), ops.sigmoid(logits)), name="detector")

    def call(self, inputs: tuple[tf.Tensor, ...], training: bool = False) -> tf.Tensor:
        """For each canvas its loss, how many anchors' classes are right, and of how many on objects: (N, 3)."""
        pixels, boxes, classes, _ = inputs
        logits, *each = self.network(pixels, training=training)
        each = [tf.reshape(o, (-1, len(level), 4)) for o, level in zip(each, self.levels, strict=True)]
        offsets = tf.concat(each, axis=1)
        anchors = tf.tile(self.all_anchors[None], (tf.shape(boxes)[0], 1, 1))
        matches = match(anchors, boxes)
        right = (matches.overlaps >= self.OBJECT) | matches.favourites
        counted = tf.cast(right | (matches.overlaps < self.WRONG), tf.float32)
        found = tf.cast(right, tf.float32)
        truth = tf.gather(classes, matches.objects, batch_dims=1)
        there = tf.one_hot(truth, logits.shape[-1]) * found[..., None]
        surprise = keras.losses.binary_focal_crossentropy(
            there, logits, apply_class_balancing=True, alpha=0.25, gamma=2.0, from_logits=True
        )
        surprise *= logits.shape[-1]  # Keras gives the mean over the classes.
        targets = offsets_between(anchors, tf.gather(boxes, matches.objects, batch_dims=1))
        misses = tf.where(right, smooth_l1(offsets - targets, 1.0), 0.0)
        total = tf.reduce_sum(found, axis=1)
        loss = tf.reduce_sum(counted * surprise + misses, axis=1) / tf.maximum(total, 1.0)
        hits = found * tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32) == truth, tf.float32)
        return tf.stack([loss, tf.reduce_sum(hits, axis=1), total], axis=1)


class RegionAccuracy(keras.metrics.Mean):
    """Share of the counted regions whose class is right."""

    def __init__(self) -> None:
        super().__init__(name="accuracy")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Add a batch: what `Detector.call` gives, (N, 3)."""
        right, counted = y_pred[:, 1], y_pred[:, 2]
        super().update_state(tf.math.divide_no_nan(right, counted), counted)


def _first_column(_: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    return found[:, 0]


def best(boxes: Any, probabilities: Any) -> dict[str, Any]:
    """The surest boxes, class by class, without those that overlap a surer one of their class too much.

    Args:
        boxes: (N, B, 4).
        probabilities: (N, B, K).
    """
    from keras_cv.layers import MultiClassNonMaxSuppression

    choose = MultiClassNonMaxSuppression(
        "yxyx",
        from_logits=False,
        iou_threshold=OVERLAP,
        confidence_threshold=LEAST_SURE,
        max_detections=MOST_FOUND,
        max_detections_per_class=MOST_FOUND,
        dtype="float32",
    )
    found = choose(boxes, probabilities)
    return {key: found[key] for key in ("boxes", "classes", "confidence")}


def cut_in_two(
    backbone: keras.Model, tap: str, after: str, cells: int | None, side: int
) -> tuple[keras.Model, keras.Model]:
    """A backbone up to a tap, for canvases, and what follows on a layer, for maps of so many cells, or as many as now.

    Raises:
        DataError: it has no such layers, or they do not go together.
    """
    outputs = outputs_of(backbone, [tap, after])
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
    rest = for_images(rest, (cells or then[1], cells or then[2], then[3]))
    if len(rest.output.shape) == 4:
        rest = keras.Model(rest.input, layers.GlobalAveragePooling2D(name="mean")(rest.output))
    return for_images(trunk, (side, side, 3)), rest


def pyramid(backbone: keras.Model, taps: Sequence[str], side: int) -> keras.Model:
    """A backbone to three maps, for canvases, with zeros behind those that are a little short.

    Raises:
        DataError: the maps do not become half as high and wide from one to the next.
    """
    outputs = outputs_of(backbone, taps)
    trunk = for_images(keras.Model(backbone.input, [outputs[tap] for tap in taps]), (side, side, 3))
    strides = [2 ** round(float(np.log2(side / each.shape[1]))) for each in trunk.outputs]
    if strides != [strides[0] * 2**level for level in range(3)] or side % strides[2]:
        sizes = ", ".join(f"{tap} {each.shape[1]} x {each.shape[2]}" for tap, each in zip(taps, trunk.outputs))
        raise DataError(
            f"taps: expected three maps, each half as high and wide as the one before, of canvases that the last "
            f"stride divides; on {side} x {side} pixels the maps are {sizes}"
        )
    padded = []
    for each, stride in zip(trunk.outputs, strides, strict=True):
        short = max(0, side // stride - each.shape[1])
        padded.append(layers.ZeroPadding2D(((0, short), (0, short)))(each) if short else each)
        if padded[-1].shape[1] != side // stride:
            raise DataError(f"taps: maps of {side} x {side} pixels would have to be {side // stride} wide, not more")
    return keras.Model(trunk.input, padded, name=backbone.name)


def for_detection(model: keras.Model, fixed: bool) -> keras.Model:
    """A copy that computes in the present precision, its batch normalisation fixed or not."""
    copy = fused(model, keras.config.dtype_policy().name)
    for layer in copy._flatten_layers():
        if fixed and isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    return copy
