"""Networks that tell of every pixel what it belongs to, on any backbone."""

from typing import Any

from rotnet_keras.engine import keras, tf
from rotnet_keras.models.backbones.registry import layer_outputs, with_input_shape
from rotnet_keras.models.base import TrainingModel

layers = keras.layers

VOID = 255
# DeepLabV3+: names of what is not the backbone's begin so; widths and dilations of the paper's.
DECODER, CHANNELS, LOW_CHANNELS, RATES = "decoder", 256, 48, (6, 12, 18)
# What follows on the last map of a network that ends in vectors.
OF_VECTORS = (layers.Flatten, layers.Dense, layers.BatchNormalization, layers.Activation, layers.ReLU, layers.Dropout)


def fcn(backbone: keras.Model, tap: str, classes: int, side: int) -> keras.Model:
    """FCN-32s (Long, Shelhamer and Darrell, CVPR 2015): a score for every place of a map, enlarged to the picture.

    Where nothing but dense layers follows on the tap, as AlexNet's fc6 and fc7 do on pool5, they become convolutions
    with their weights.

    Returns:
        A model from pixels (N, side, side, 3) to logits (N, side, side, classes).
    """
    trunk = keras.Model(backbone.input, layer_outputs(backbone, [tap])[tap], name=backbone.name)
    map_size = trunk.output.shape[1:3]
    trunk = with_input_shape(trunk, (side, side, backbone.input.shape[3]))
    x = trunk.output
    following = backbone.layers[backbone.layers.index(backbone.get_layer(tap)) + 1 :]
    for layer in following if all(isinstance(layer, OF_VECTORS) for layer in following) else ():
        if isinstance(layer, layers.Dense):
            x = _as_convolution(layer, map_size, x)
            map_size = (1, 1)
        elif not isinstance(layer, layers.Flatten):
            fresh = type(layer).from_config(layer.get_config())
            x = fresh(x)
            fresh.set_weights(layer.get_weights())
    return _enlarged(trunk.input, x, classes, side, "fcn")


def deeplab(backbone: keras.Model, tap: str, low: str, classes: int, side: int) -> keras.Model:
    """DeepLabV3+ (Chen et al., ECCV 2018): a map seen at several scales, enlarged and refined by an earlier one.

    Of built-in layers: keras-cv's model takes none but maps of a quarter and a 32nd of the picture's side.

    Args:
        tap: the last map that is read.
        low: the earlier, larger one.

    Returns:
        A model from pixels (N, side, side, 3) to logits (N, side, side, classes).
    """
    outputs = layer_outputs(backbone, [tap, low])
    trunk = keras.Model(backbone.input, [outputs[tap], outputs[low]], name=backbone.name)
    trunk = with_input_shape(trunk, (side, side, backbone.input.shape[3]))
    deep, fine = trunk.outputs
    height, width = deep.shape[1:3]
    mean = layers.GlobalAveragePooling2D(keepdims=True, name=f"{DECODER}_mean")(deep)
    mean = layers.UpSampling2D((height, width))(_normalised(mean, "of_mean", CHANNELS))
    scales = [_normalised(deep, f"rate{rate}", CHANNELS, 3, rate) for rate in RATES]
    x = layers.Concatenate()([_normalised(deep, "point", CHANNELS), *scales, mean])
    x = layers.Resizing(*fine.shape[1:3], "bilinear")(_normalised(x, "together", CHANNELS))
    x = layers.Concatenate()([x, _normalised(fine, "low", LOW_CHANNELS)])
    for number in (1, 2):
        x = _normalised(x, f"refined{number}", CHANNELS, 3)
    return _enlarged(trunk.input, x, classes, side, "deeplab")


def _normalised(x: keras.KerasTensor, name: str, channels: int, size: int = 1, rate: int = 1) -> keras.KerasTensor:
    options = {"padding": "same", "dilation_rate": rate, "use_bias": False, "name": f"{DECODER}_{name}"}
    x = layers.Conv2D(channels, size, kernel_initializer="he_normal", **options)(x)
    return layers.ReLU()(layers.BatchNormalization(name=f"{DECODER}_{name}_bn")(x))


def _enlarged(inputs: keras.KerasTensor, x: keras.KerasTensor, classes: int, side: int, name: str) -> keras.Model:
    x = layers.Conv2D(classes, 1, kernel_initializer="zeros", name="score")(x)
    return keras.Model(inputs, layers.Resizing(side, side, "bilinear", name="enlarged", dtype="float32")(x), name=name)


def new_variables(network: keras.Model) -> list[keras.Variable]:
    """What is trained of a segmenting network and not its backbone's."""
    mine = [layer for layer in network.layers if layer.name.startswith((DECODER, "score"))]
    return [variable for layer in mine for variable in layer.trainable_variables]


def _as_convolution(layer: keras.layers.Dense, size: tuple[int, int], x: keras.KerasTensor) -> keras.KerasTensor:
    """A dense layer on a map of some height and width, at every place of a larger one."""
    options = {"use_bias": layer.use_bias, "name": layer.name}
    convolution = layers.Conv2D(layer.units, size, padding="same", **options)
    x = convolution(x)
    kernel, *bias = layer.get_weights()
    convolution.set_weights([kernel.reshape(*size, -1, layer.units), *bias])
    return x


class Segmenter(TrainingModel):
    """A network from pixels to logits of every pixel, in training.

    It trains on batches of canvases (N, S, S, 3) and masks (N, S, S) uint8, `VOID` where there is nothing to learn.

    Args:
        network: to logits (N, S, S, K).
    """

    def __init__(self, network: keras.Model, seed: int) -> None:
        super().__init__("segmenter", seed)
        self.network = network

    @property
    def networks(self) -> list[keras.Model]:
        """What is trained."""
        return [self.network]

    def compile_for(self, optimizer: keras.optimizers.Optimizer, label_smoothing: float) -> None:
        """Compile it with the mean cross-entropy over the pixels that are not void."""
        self.compile(optimizer, loss=pixel_loss, metrics=[PixelAccuracy()])

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits (N, S, S, K)."""
        return self.network(inputs, training=training)

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Canvases and masks as they are."""
        return tuple(data)

    def example_batch(self) -> tuple[Any, ...]:
        """A canvas, its mask and its weight."""
        shape = self.network.input.shape[1:]
        return tf.zeros((1, *shape)), tf.zeros((1, *shape[:2]), tf.uint8), tf.ones(1)


class PixelAccuracy(keras.metrics.Mean):
    """Share of the pixels that are not void whose class is right."""

    def __init__(self) -> None:
        super().__init__(name="accuracy")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Add a batch: masks (N, S, S), logits (N, S, S, K)."""
        true = tf.cast(y_true, tf.int32)
        right = tf.argmax(y_pred, axis=-1, output_type=tf.int32) == true
        super().update_state(tf.cast(right, tf.float32), tf.cast(true != VOID, tf.float32))


def pixel_loss(masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy over the pixels of each canvas that are not void, (N,).

    Args:
        masks: (N, S, S).
        logits: (N, S, S, K).
    """
    true = tf.cast(masks, tf.int32)
    known = true != VOID
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(known, true, 0), tf.cast(logits, tf.float32))
    counted = tf.cast(known, tf.float32)
    return tf.reduce_sum(each * counted, axis=(1, 2)) / tf.maximum(tf.reduce_sum(counted, axis=(1, 2)), 1.0)
