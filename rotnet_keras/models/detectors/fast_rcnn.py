"""Fast R-CNN on any backbone."""

from typing import Any

from rotnet_keras.engine import keras, tf
from rotnet_keras.models import stateless_random
from rotnet_keras.models.detectors.base import BatchNormMode, prepare_trunk
from rotnet_keras.models.detectors.regions import RegionDetector, split_backbone
from rotnet_keras.models.fused_batch_norm import with_stock_layers
from rotnet_keras.models.step_dropout import with_dropout


class FastRCNN(RegionDetector):
    """Fast R-CNN (Girshick, ICCV 2015): a head classifies regions that another program proposed.

    The proposals of an image come with its objects: they are the last rows of `objects`, (N, M + R, 5), with the class
    `NO_OBJECT`. The head is made of the backbone's layers as in Faster R-CNN. Unlike in the original, a region has one
    box for all classes, and is read by RoI align.

    Args:
        backbone: a functional model from pixels; it is rebuilt for the image side.
        tap: the layer whose map regions are read from.
        after: the head consists of the layers behind this one. The layers between `tap` and `after`, such as a pool,
            are replaced by RoI align.
        cells: height and width of a region as it is read; by default those of the map of `after`.
        classes: K, without the background.
        side: of the images in pixels.
        objects: M, the most objects in an image.
        proposals: R, the most proposals for an image.
        seed: of the initial weights and of the samples.
        norm: what the backbone's batch normalisation does in training.
        dropout: rate of the dropout behind the head's dense layers from the backbone.

    Raises:
        DataError: the backbone has no such layers, or their maps do not fit.
    """

    # As in the original: the regions that are sampled per image, and the overlap from which on others than objects are
    # background.
    REGIONS, REGION_BACKGROUND = 64, 0.1

    def __init__(
        self,
        backbone: keras.Model,
        tap: str,
        after: str,
        cells: int | None,
        classes: int,
        side: int,
        objects: int,
        proposals: int,
        seed: int,
        norm: BatchNormMode = "fixed",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(side, objects, seed)
        self.proposals = proposals
        trunk, rest = split_backbone(backbone, tap, after, cells, side)
        self.trunk, rest = prepare_trunk(trunk, norm), prepare_trunk(with_dropout(rest, dropout), norm)
        self.stride = side / trunk.output.shape[1]
        self.head = self._head(rest, classes)
        self.cells = rest.input.shape[1]
        self.inference_model = self._inference_model(self.trunk, self.head)

    @property
    def networks(self) -> list[keras.Model]:
        """The backbone up to the tap, and the head."""
        return [self.trunk, self.head]

    @property
    def passes_per_image(self) -> list[int]:
        """One image for the backbone, and its sampled regions for the head."""
        return [1, self.REGIONS]

    @property
    def new_variables(self) -> list[keras.Variable]:
        """The trained variables that are not the backbone's."""
        return [v for name in ("classes", "offsets") for v in self.head.get_layer(name).variables]

    @property
    def rows(self) -> int:
        """The rows of objects and proposals of an image, M + R."""
        return self.objects + self.proposals

    def exported(self) -> keras.Model:
        """A copy of `inference_model` for export: float32, made of built-in layers and keras-cv's."""
        return self._inference_model(with_stock_layers(self.trunk), with_stock_layers(self.head))

    def inference_inputs(self, pixels: Any, objects: Any) -> dict[str, Any]:
        """The inputs of `inference_model`: "pixels" and "regions", the proposals among the rows of `objects`."""
        return {"pixels": pixels, "regions": objects[:, self.objects :, :4]}

    def _inference_model(self, trunk: keras.Model, head: keras.Model) -> keras.Model:
        pixels = keras.Input((self.side, self.side, 3), name="pixels")
        regions = keras.Input((self.proposals, 4), name="regions", dtype="float32")
        inputs = {"pixels": pixels, "regions": regions}
        return keras.Model(inputs, self._detections(head, trunk(pixels), regions), name="detector")

    def call(self, inputs: tuple[tf.Tensor, ...], training: bool = False) -> tf.Tensor:
        """For each image its loss, its correctly classified regions, and its sampled regions: (N, 3)."""
        pixels, rows, classes, positions = inputs
        maps = self.trunk(pixels, training=training)
        draws = stateless_random.uniform(self.step_seed(), tf.shape(pixels)[0], self.rows, positions)
        boxes, classes = rows[:, : self.objects], classes[:, : self.objects]
        # The objects' own boxes are regions too, as in the original.
        loss, correct, sampled = self._head_loss(maps, rows, boxes, classes, draws, training)
        return tf.stack([loss, correct, sampled], axis=1)
