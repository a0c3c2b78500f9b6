"""Semantic segmentation on any backbone: FCN-32s and DeepLabV3+."""

from typing import Any

from rotnet_keras.engine import keras, tf
from rotnet_keras.models.backbones.registry import layer_outputs, with_input_shape
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.models.step_dropout import StepDropout, check_dropout, use_step_seeds

layers = keras.layers

# The label of pixels without a class.
VOID = 255
# DeepLabV3+: the prefix of the names of its layers, and the channels and dilation rates of the paper.
DECODER, CHANNELS, LOW_CHANNELS, RATES = "decoder", 256, 48, (6, 12, 18)
# Layers that may follow on the last feature map of a backbone that ends in vectors.
VECTOR_LAYERS = (
    layers.Flatten,
    layers.Dense,
    layers.BatchNormalization,
    layers.Activation,
    layers.ReLU,
    layers.Dropout,
)


def fcn(backbone: keras.Model, tap: str, classes: int, side: int, dropout: float = 0.0) -> keras.Model:
    """FCN-32s (Long, Shelhamer and Darrell, CVPR 2015): logits for every cell of a map, resized to the image.

    Where only dense layers follow on the tap, like AlexNet's fc6 and fc7 on pool5, they become convolutions with the
    same weights.

    Args:
        backbone: from pixels to features.
        tap: the layer whose map is read.
        classes: K, with the background.
        side: of the square images in pixels.
        dropout: rate of the dropout behind each of these layers.

    Returns:
        A model from pixels (N, side, side, 3) to logits (N, side, side, classes).

    Raises:
        DataError: there are no such layers for the dropout.
    """
    trunk = keras.Model(backbone.input, layer_outputs(backbone, [tap])[tap], name=backbone.name)
    map_size = trunk.output.shape[1:3]
    trunk = with_input_shape(trunk, (side, side, backbone.input.shape[3]))
    x, dropped = trunk.output, 0
    following = backbone.layers[backbone.layers.index(backbone.get_layer(tap)) + 1 :]
    for layer in following if all(isinstance(layer, VECTOR_LAYERS) for layer in following) else ():
        if isinstance(layer, layers.Dense):
            x = _as_convolution(layer, map_size, x)
            map_size = (1, 1)
        elif not isinstance(layer, layers.Flatten):
            copy = type(layer).from_config(layer.get_config())
            x = copy(x)
            copy.set_weights(layer.get_weights())
            if dropout and isinstance(layer, layers.Activation | layers.ReLU):
                x = StepDropout(dropout, name=f"{layer.name}_dropout")(x)
                dropped += 1
    if dropout:
        check_dropout(dropped)
    return _with_logits(trunk.input, x, classes, side, "fcn")


def deeplab(backbone: keras.Model, tap: str, low: str, classes: int, side: int) -> keras.Model:
    """DeepLabV3+ (Chen et al., ECCV 2018): atrous spatial pyramid pooling, refined by an earlier map.

    It is made of built-in layers, because keras-cv's model accepts only maps of 1/4 and 1/32 of the image's side.

    Args:
        backbone: from pixels to features.
        tap: the layer with the map for the pyramid pooling.
        low: an earlier layer with a larger map, for the decoder.
        classes: K, with the background.
        side: of the square images in pixels.

    Returns:
        A model from pixels (N, side, side, 3) to logits (N, side, side, classes).
    """
    outputs = layer_outputs(backbone, [tap, low])
    trunk = keras.Model(backbone.input, [outputs[tap], outputs[low]], name=backbone.name)
    trunk = with_input_shape(trunk, (side, side, backbone.input.shape[3]))
    deep, fine = trunk.outputs
    height, width = deep.shape[1:3]
    mean = layers.GlobalAveragePooling2D(keepdims=True, name=f"{DECODER}_mean")(deep)
    mean = layers.UpSampling2D((height, width))(_conv_bn_relu(mean, "of_mean", CHANNELS))
    scales = [_conv_bn_relu(deep, f"rate{rate}", CHANNELS, 3, rate) for rate in RATES]
    x = layers.Concatenate()([_conv_bn_relu(deep, "point", CHANNELS), *scales, mean])
    x = layers.Resizing(*fine.shape[1:3], "bilinear")(_conv_bn_relu(x, "together", CHANNELS))
    x = layers.Concatenate()([x, _conv_bn_relu(fine, "low", LOW_CHANNELS)])
    for number in (1, 2):
        x = _conv_bn_relu(x, f"refined{number}", CHANNELS, 3)
    return _with_logits(trunk.input, x, classes, side, "deeplab")


def _conv_bn_relu(x: keras.KerasTensor, name: str, channels: int, size: int = 1, rate: int = 1) -> keras.KerasTensor:
    options = {"padding": "same", "dilation_rate": rate, "use_bias": False, "name": f"{DECODER}_{name}"}
    x = layers.Conv2D(channels, size, kernel_initializer="he_normal", **options)(x)
    return layers.ReLU()(layers.BatchNormalization(name=f"{DECODER}_{name}_bn")(x))


def _with_logits(inputs: keras.KerasTensor, x: keras.KerasTensor, classes: int, side: int, name: str) -> keras.Model:
    x = layers.Conv2D(classes, 1, kernel_initializer="zeros", name="score")(x)
    return keras.Model(inputs, layers.Resizing(side, side, "bilinear", name="enlarged", dtype="float32")(x), name=name)


def new_variables(network: keras.Model) -> list[keras.Variable]:
    """The trainable variables of a segmentation model that are not the backbone's."""
    added = [layer for layer in network.layers if layer.name.startswith((DECODER, "score"))]
    return [variable for layer in added for variable in layer.trainable_variables]


def _as_convolution(layer: keras.layers.Dense, size: tuple[int, int], x: keras.KerasTensor) -> keras.KerasTensor:
    """A dense layer on a map of some size, applied as a convolution at every position of a larger map."""
    options = {"use_bias": layer.use_bias, "name": layer.name}
    convolution = layers.Conv2D(layer.units, size, padding="same", **options)
    x = convolution(x)
    kernel, *bias = layer.get_weights()
    convolution.set_weights([kernel.reshape(*size, -1, layer.units), *bias])
    return x


class Segmenter(TrainingModel):
    """A segmentation model in training.

    It trains on batches of images (N, S, S, 3) and masks (N, S, S) uint8, with `VOID` for pixels to leave out.

    Args:
        network: a model from pixels to logits (N, S, S, K).
        seed: of the step's random numbers.
    """

    def __init__(self, network: keras.Model, seed: int) -> None:
        super().__init__("segmenter", seed)
        self.network = network

    @property
    def networks(self) -> list[keras.Model]:
        """The segmentation model."""
        return [self.network]

    def compile_for(self, optimizer: keras.optimizers.Optimizer, label_smoothing: float) -> None:
        """Compile with `pixel_loss`."""
        use_step_seeds(self.networks, self.step_seed)
        self.compile(optimizer, loss=pixel_loss, metrics=[PixelAccuracy()])

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The logits (N, S, S, K) of images (N, S, S, 3)."""
        return self.network(inputs, training=training)

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Images and masks as they are."""
        return tuple(data)

    def example_batch(self) -> tuple[Any, ...]:
        """An image, its mask and a sample weight, each of batch size 1."""
        shape = self.network.input.shape[1:]
        return tf.zeros((1, *shape)), tf.zeros((1, *shape[:2]), tf.uint8), tf.ones(1)


class PixelAccuracy(keras.metrics.Mean):
    """The share of correctly classified pixels among those that are not void."""

    def __init__(self) -> None:
        super().__init__(name="accuracy")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Add a batch of masks (N, S, S) and logits (N, S, S, K)."""
        true = tf.cast(y_true, tf.int32)
        correct = tf.argmax(y_pred, axis=-1, output_type=tf.int32) == true
        super().update_state(tf.cast(correct, tf.float32), tf.cast(true != VOID, tf.float32))


def pixel_loss(masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The mean cross-entropy over the pixels of each image that are not void.

    Args:
        masks: (N, S, S), classes or `VOID`.
        logits: (N, S, S, K).

    Returns:
        (N,) float32.
    """
    true = tf.cast(masks, tf.int32)
    valid = true != VOID
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(valid, true, 0), tf.cast(logits, tf.float32))
    mask = tf.cast(valid, tf.float32)
    return tf.reduce_sum(losses * mask, axis=(1, 2)) / tf.maximum(tf.reduce_sum(mask, axis=(1, 2)), 1.0)
