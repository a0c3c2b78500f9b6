"""RetinaNet on any backbone."""

from collections.abc import Sequence

import numpy as np

from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.models.backbones.registry import layer_outputs, with_input_shape
from rotnet_keras.models.detectors.anchor_matching import match, smooth_l1
from rotnet_keras.models.detectors.base import BatchNormMode, Detector, non_max_suppression, prepare_trunk
from rotnet_keras.models.detectors.boxes import RATIOS, Anchors, clip_boxes, encode_boxes, make_anchors
from rotnet_keras.models.fused_batch_norm import with_stock_layers

layers, ops = keras.layers, keras.ops


class RetinaNet(Detector):
    """RetinaNet (Lin, Goyal, Girshick, He and Dollár, ICCV 2017) on three maps of a backbone, with keras-cv's heads.

    Args:
        backbone: a functional model from pixels; it is rebuilt for the image side.
        taps: three layers whose maps halve in height and width from one to the next.
        classes: K, without the background.
        side: of the images in pixels.
        objects: the most objects in an image.
        seed: of the step's random numbers.
        norm: what the backbone's batch normalisation does in training.

    Raises:
        DataError: the backbone has no such layers, or their maps do not halve.
    """

    # The channels of the pyramid, and the sizes of anchors in cells: SIZE times each of OCTAVES.
    CHANNELS, SIZE, OCTAVES = 256, 4.0, (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    # The overlap from which on an anchor is an object, and the one below which it is background.
    POSITIVE, NEGATIVE = 0.5, 0.4
    # The initial probability of every class.
    PRIOR = 0.01

    def __init__(
        self,
        backbone: keras.Model,
        taps: Sequence[str],
        classes: int,
        side: int,
        objects: int,
        seed: int,
        norm: BatchNormMode = "fixed",
    ) -> None:
        super().__init__(side, objects, seed)
        self.network, self.levels = self._network(prepare_trunk(pyramid_trunk(backbone, taps, side), norm), classes)
        self.anchor_boxes = np.concatenate([level.boxes() for level in self.levels])
        self.inference_model = self._inference_model(self.network)

    @property
    def networks(self) -> list[keras.Model]:
        """The backbone with the pyramid and both heads."""
        return [self.network]

    @property
    def new_variables(self) -> list[keras.Variable]:
        """The trained variables that are not the backbone's."""
        added = [layer for layer in self.network.layers if layer.name.startswith(("pyramid", "classes", "boxes"))]
        return [v for layer in added for v in layer.variables]

    def exported(self) -> keras.Model:
        """A copy of `inference_model` for export: float32, made of built-in layers and keras-cv's."""
        return self._inference_model(with_stock_layers(self.network))

    def _network(self, trunk: keras.Model, classes: int) -> tuple[keras.Model, list[Anchors]]:
        """The model from pixels to logits (N, B, K) and the offsets of each level; and the anchors of each level."""
        from keras_cv.models.retinanet import PredictionHead

        maps = self._pyramid(trunk.outputs)
        count = len(RATIOS) * len(self.OCTAVES)
        prior = keras.initializers.Constant(float(-np.log((1 - self.PRIOR) / self.PRIOR)))
        class_head = PredictionHead(count * classes, prior, name="classes")
        box_head = PredictionHead(count * 4, keras.initializers.Zeros(), name="boxes")
        levels, logits, offsets = [], [], []
        first = self.side // maps[0].shape[1]
        for level, each in enumerate(maps):
            stride = first * 2**level
            sizes = [self.SIZE * stride * octave for octave in self.OCTAVES]
            levels.append(make_anchors(each.shape[1:3], stride, sizes, RATIOS))
            logits.append(layers.Reshape((-1, classes), dtype="float32")(class_head(each)))
            offsets.append(layers.Identity(dtype="float32")(box_head(each)))
        both = layers.Concatenate(axis=1, name="all_classes", dtype="float32")(logits)
        return keras.Model(trunk.input, [both, *offsets], name="retinanet"), levels

    def _pyramid(self, maps: Sequence[keras.KerasTensor]) -> list[keras.KerasTensor]:
        """Five maps of equal depth (Lin et al., "Feature pyramid networks", 2017).

        keras-cv's own layer reports wrong shapes of the last two to Keras.
        """

        def convolved(x: keras.KerasTensor, name: str, size: int = 3, strides: int = 1) -> keras.KerasTensor:
            return layers.Conv2D(self.CHANNELS, size, strides, padding="same", name=f"pyramid_{name}")(x)

        across = [convolved(each, f"across{level}", size=1) for level, each in enumerate(maps, 3)]
        for upper in (1, 0):
            across[upper] = layers.Add()([across[upper], layers.UpSampling2D(2)(across[upper + 1])])
        smooth = [convolved(each, f"smooth{level}") for level, each in enumerate(across, 3)]
        sixth = convolved(maps[2], "down6", strides=2)
        return [*smooth, sixth, convolved(layers.ReLU()(sixth), "down7", strides=2)]

    def _inference_model(self, network: keras.Model) -> keras.Model:
        pixels = keras.Input((self.side, self.side, 3), name="pixels")
        logits, *offsets = network(pixels)
        boxes = ops.concatenate([level.decode(o) for level, o in zip(self.levels, offsets, strict=True)], axis=1)
        return keras.Model(
            pixels, non_max_suppression(clip_boxes(boxes, self.side), ops.sigmoid(logits)), name="detector"
        )

    def call(self, inputs: tuple[tf.Tensor, ...], training: bool = False) -> tf.Tensor:
        """For each image its loss, its correctly classified anchors on objects, and its anchors on objects: (N, 3)."""
        pixels, boxes, classes, _ = inputs
        logits, *each = self.network(pixels, training=training)
        each = [tf.reshape(o, (-1, len(level), 4)) for o, level in zip(each, self.levels, strict=True)]
        offsets = tf.concat(each, axis=1)
        anchors = tf.tile(self.anchor_boxes[None], (tf.shape(boxes)[0], 1, 1))
        matches = match(anchors, boxes)
        positive = (matches.ious >= self.POSITIVE) | matches.best_anchors
        counted = tf.cast(positive | (matches.ious < self.NEGATIVE), tf.float32)
        on_object = tf.cast(positive, tf.float32)
        labels = tf.gather(classes, matches.objects, batch_dims=1)
        one_hot = tf.one_hot(labels, logits.shape[-1]) * on_object[..., None]
        class_loss = keras.losses.binary_focal_crossentropy(
            one_hot, logits, apply_class_balancing=True, alpha=0.25, gamma=2.0, from_logits=True
        )
        class_loss *= logits.shape[-1]  # Keras gives the mean over the classes.
        targets = encode_boxes(anchors, tf.gather(boxes, matches.objects, batch_dims=1))
        box_loss = tf.where(positive, smooth_l1(offsets - targets, 1.0), 0.0)
        total = tf.reduce_sum(on_object, axis=1)
        loss = tf.reduce_sum(counted * class_loss + box_loss, axis=1) / tf.maximum(total, 1.0)
        correct = on_object * tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32) == labels, tf.float32)
        return tf.stack([loss, tf.reduce_sum(correct, axis=1), total], axis=1)


def pyramid_trunk(backbone: keras.Model, taps: Sequence[str], side: int) -> keras.Model:
    """A backbone up to three maps, for images of some side. Maps that are a little too small are padded with zeros.

    Raises:
        DataError: the backbone has no such layers, or their maps do not halve from one to the next.
    """
    outputs = layer_outputs(backbone, taps)
    trunk = with_input_shape(keras.Model(backbone.input, [outputs[tap] for tap in taps]), (side, side, 3))
    strides = [2 ** round(float(np.log2(side / each.shape[1]))) for each in trunk.outputs]
    if strides != [strides[0] * 2**level for level in range(3)] or side % strides[2]:
        sizes = ", ".join(f"{tap} {each.shape[1]} x {each.shape[2]}" for tap, each in zip(taps, trunk.outputs))
        raise DataError(
            f"taps: expected three maps, each half as high and wide as the previous one, and a canvas side that is a "
            f"multiple of the last stride; at {side} x {side} pixels the maps are {sizes}"
        )
    padded = []
    for each, stride in zip(trunk.outputs, strides, strict=True):
        short = max(0, side // stride - each.shape[1])
        padded.append(layers.ZeroPadding2D(((0, short), (0, short)))(each) if short else each)
        if padded[-1].shape[1] != side // stride:
            raise DataError(
                f"taps: expected a map {side // stride} cells wide at {side} x {side} pixels, got {padded[-1].shape[1]}"
            )
    return keras.Model(trunk.input, padded, name=backbone.name)
