"""Backbones: functional Keras models of built-in layers, from raw pixels to the last feature map.

Every backbone takes pixels in [0, 255] and begins with a layer `normalization`. Its blocks end in layers named `conv1`,
`conv2`, ...: the taps. Their features are `model.get_layer("conv2").output`, with Keras alone.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from rotnet_keras.config.architectures import APPLICATIONS, ARCHITECTURES
from rotnet_keras.config.sections import Backbone
from rotnet_keras.data.values.ranges import ValueRange
from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError
from rotnet_keras.models.backbones.airbench import airbench
from rotnet_keras.models.backbones.alexnet import alexnet
from rotnet_keras.models.backbones.applications import application
from rotnet_keras.models.backbones.blocks import normalization
from rotnet_keras.models.backbones.compact import compact
from rotnet_keras.models.backbones.nin import nin
from rotnet_keras.models.backbones.resnet import resnet50, resnet50v2
from rotnet_keras.runs.exports.backbone_file import NORMALIZATION, VALUES, tap_names

BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "nin": nin,
    "compact": compact,
    "airbench": airbench,
    "alexnet": alexnet,
    "resnet50": resnet50,
    "resnet50v2": resnet50v2,
    **{name: partial(application, name) for name in APPLICATIONS},
}


def backbone(name: str, input_shape: Sequence[int] = (32, 32, 3), **options: object) -> keras.Model:
    """Build a backbone by name, with new weights.

    Args:
        name: "nin", "compact", "airbench", "alexnet", "resnet50", "resnet50v2", or the name of a model in
            `keras.applications`.
        input_shape: (H, W, C) of raw pixels in [0, 255].
        **options: of the builder. `width` multiplies all numbers of channels; `mean` and `std` are those of the pixels,
            for each channel, 127.5 by default; `blocks` is the number of blocks of "nin", "compact" and "airbench";
            `stem` of "alexnet", "resnet50" and "resnet50v2" is "standard", or "small" for images of 32 to 64 pixels;
            `activation` of "airbench" is "relu" or "silu".

    Returns:
        A functional `keras.Model` from pixels (N, H, W, C) to the last block's feature map, or to `fc7` of AlexNet. It
        takes uint8 or float pixels and has float32 weights. Layers named `conv1`, `conv2`, ... are the taps.

    Raises:
        ValueError: no backbone has this name.

    Example:
        >>> from rotnet_keras import backbone
        >>> model = backbone("compact", (32, 32, 3), width=0.5)
        >>> model.get_layer("conv2").output.shape
        (None, 8, 8, 64)
    """
    if name not in BUILDERS:
        raise ValueError(f"No backbone is called {name!r}. Expected one of: {', '.join(BUILDERS)}.")
    return BUILDERS[name](input_shape, **options)


def build_backbone(
    spec: Backbone,
    shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    values: ValueRange | None = None,
) -> keras.Model:
    """Build the backbone that a recipe describes, with new weights.

    Args:
        spec: the recipe's section `backbone`.
        shape: (H, W, C) of the images.
        mean: of the pixels, for each channel, 0 to 255, or in the numbers of files with more than 8 bits.
        std: of the pixels, for each channel.
        values: the range of these numbers; None for bytes.

    Raises:
        DataError: the images are too small for the backbone.
    """
    smallest = ARCHITECTURES[spec.name].smallest(spec.stem)
    if min(shape[:2]) < smallest:
        sides = " x ".join(map(str, shape[:2]))
        raise DataError(
            f"{spec.name} needs images of at least {smallest} pixels a side, these have {sides}: set data.size"
        )
    options: dict[str, object] = {} if spec.blocks is None else {"blocks": spec.blocks}
    options |= {} if spec.stem == "standard" else {"stem": spec.stem}
    options |= {} if spec.activation == "relu" else {"activation": spec.activation}
    built = backbone(spec.name, shape, width=spec.width, mean=mean, std=std, **options)
    return built if values is None else with_input_name(built, VALUES)


def layer_outputs(model: keras.Model, names: Sequence[str]) -> dict[str, keras.KerasTensor]:
    """The outputs of some layers of a functional model, by layer name.

    Args:
        model: with the layers.
        names: of layers. "conv2+conv3" is both side by side: their channels one after the other, with smaller maps
            enlarged to the size of the largest by repeating their values.

    Raises:
        DataError: the model has no layer of one of the names, or maps and vectors are joined.
    """
    known = {layer.name for layer in model.layers}
    missing = [part for name in names for part in name.split("+") if part not in known]
    if missing:
        last = ", ".join(layer.name for layer in model.layers[-5:])
        raise DataError(f"the backbone has no layer called {', '.join(missing)}; its layers end in {last}")
    return {name: _side_by_side([model.get_layer(part).output for part in name.split("+")], name) for name in names}


def scope_name(tap: str) -> str:
    """A tap's name as TensorFlow accepts it in the names of layers and losses: `conv2_conv3` for `conv2+conv3`."""
    return tap.replace("+", "_")


def _side_by_side(outputs: Sequence[keras.KerasTensor], name: str) -> keras.KerasTensor:
    if len(outputs) == 1:
        return outputs[0]
    shapes = [tuple(output.shape[1:]) for output in outputs]
    if len({len(shape) for shape in shapes}) > 1:
        raise DataError(f"{name}: features of the shapes {', '.join(map(str, shapes))} cannot be put side by side")
    if len(shapes[0]) == 3:
        largest = max(shape[:2] for shape in shapes)
        outputs = [
            output
            if output.shape[1:3] == largest
            else keras.layers.Resizing(*largest, interpolation="nearest", dtype="float32")(output)
            for output in outputs
        ]
    return keras.layers.Concatenate()(outputs)


def taps(model: keras.Model) -> list[str]:
    """The names of a model's taps in order: the layers named `conv<number>`."""
    return tap_names([layer.name for layer in model.layers])


def with_input_shape(model: keras.Model, shape: Sequence[int]) -> keras.Model:
    """The same model with equal weights for images of another shape (H, W, C).

    Raises:
        DataError: its weights depend on the shape, like those of a dense layer on a feature map.
    """
    have = tuple(model.input.shape[1:])
    if have == tuple(shape):
        return model
    try:
        resized = keras.models.clone_model(model, input_tensors=keras.Input(tuple(shape), name=model.input.name))
        resized.set_weights(model.get_weights())
    except ValueError:
        raise DataError(
            f"the backbone takes images of shape {have}, these have shape {tuple(shape)}, and its last layers cannot "
            "take others: set data.size, data.channels and augment.crop, or read an earlier layer"
        ) from None
    return resized


def with_statistics(model: keras.Model, mean: Sequence[float], std: Sequence[float]) -> keras.Model:
    """The same model with equal weights, whose layer `normalization` scales pixels by other statistics.

    Args:
        model: a backbone of this package.
        mean: of the pixels, for each channel, 0 to 255.
        std: of the pixels, for each channel.

    Raises:
        DataError: it has no such layer.
    """
    if not any(type(layer) is keras.layers.Rescaling and layer.name == NORMALIZATION for layer in model.layers):
        raise DataError(
            f"pretrained.statistics: the model has no Rescaling layer {NORMALIZATION!r} that could take those of the "
            "images; leave it out"
        )

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return normalization(mean, std) if layer.name == NORMALIZATION else type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def for_images(model: keras.Model, values: ValueRange | None) -> keras.Model:
    """The same model for images of a data set: for bytes, or for the numbers of files with more than 8 bits.

    Args:
        model: a backbone. One for bytes gets the range of the values as bytes from 0 to 255, by its first layer.
        values: the range of the values; None for bytes.

    Raises:
        DataError: it takes the numbers of such files, and the images are bytes; or it has no layer to scale them with.
    """
    takes_values = model.input.name == VALUES
    if values is None and takes_values:
        raise DataError(
            "the backbone was trained on images with more than 8 bits and takes their values as they are, and these "
            "have 8 bits"
        )
    if values is None or takes_values:
        return model
    first = next((each for each in model.layers if type(each) is keras.layers.Rescaling), None)
    if first is None or first.input is not model.input:
        raise DataError(
            "the images have more than 8 bits, and the backbone does not begin with a Rescaling layer that could take "
            "their values: put one before it, or save the images with 8 bits"
        )
    scale = np.asarray(first.scale, np.float64) * 255 / values.span
    offset = np.asarray(first.offset, np.float64) - scale * np.asarray(values.low)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        changed = {"scale": scale.tolist(), "offset": offset.tolist()} if layer is first else {}
        return type(layer).from_config(layer.get_config() | changed)

    return with_input_name(model, VALUES, clone)


def with_input_name(
    model: keras.Model, name: str, clone: Callable[[keras.layers.Layer], keras.layers.Layer] | None = None
) -> keras.Model:
    """The same model with equal weights, whose input has another name: `VALUES` says that it takes no bytes.

    Args:
        model: the model.
        name: of the input.
        clone: copies a layer; by default as it is.
    """
    inputs = keras.Input(tuple(model.input.shape[1:]), name=name, dtype="float32")
    copy = keras.models.clone_model(model, input_tensors=inputs, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def freeze_up_to(model: keras.Model, name: str) -> None:
    """Freeze the layers of a model up to and including one: their weights are not trained.

    Raises:
        DataError: the model has no layer of this name.
    """
    for layer in keras.Model(model.input, layer_outputs(model, [name])[name]).layers:
        layer.trainable = False
