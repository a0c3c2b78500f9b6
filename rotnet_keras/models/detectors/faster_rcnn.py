"""Faster R-CNN on any backbone."""

from typing import Any

from rotnet_keras.engine import keras, tf
from rotnet_keras.models import stateless_random
from rotnet_keras.models.detectors.anchor_matching import match, sample_balanced, smooth_l1
from rotnet_keras.models.detectors.base import BatchNormMode, prepare_trunk
from rotnet_keras.models.detectors.boxes import RATIOS, clip_boxes, encode_boxes, make_anchors
from rotnet_keras.models.detectors.regions import RegionDetector, split_backbone
from rotnet_keras.models.fused_batch_norm import with_stock_layers
from rotnet_keras.models.step_dropout import with_dropout

layers, ops = keras.layers, keras.ops


class FasterRCNN(RegionDetector):
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
    # The anchors that are sampled per image, the largest share of objects among them, and the overlaps above which they
    # are objects and below which they are background.
    ANCHORS, ANCHOR_SHARE, ANCHOR_POSITIVE, ANCHOR_NEGATIVE = 256, 0.5, 0.7, 0.3

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

    def _inference_model(self, rpn: keras.Model, head: keras.Model) -> keras.Model:
        pixels = keras.Input((self.side, self.side, 3), name="pixels")
        maps, objectness, anchor_offsets = rpn(pixels)
        regions = self._regions(objectness, anchor_offsets)
        return keras.Model(pixels, self._detections(head, maps, regions), name="detector")

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
