"""Backbones: functional Keras models of stock layers, from raw pixels to the last feature map.

Every backbone takes pixels in [0, 255] and begins with a `normalization` layer. Its blocks end in layers
named `conv1`, `conv2`, ...: the taps, which any Keras can read with `model.get_layer("conv2").output`.
"""

from collections.abc import Callable, Sequence
from functools import partial

from rotnet_keras.config.architectures import APPLICATIONS, ARCHITECTURES
from rotnet_keras.config.sections import Backbone
from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError
from rotnet_keras.models.backbones.alexnet import alexnet
from rotnet_keras.models.backbones.applications import application
from rotnet_keras.models.backbones.compact import compact
from rotnet_keras.models.backbones.nin import nin
from rotnet_keras.models.backbones.resnet import resnet50, resnet50v2

BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "nin": nin,
    "compact": compact,
    "alexnet": alexnet,
    "resnet50": resnet50,
    "resnet50v2": resnet50v2,
    **{name: partial(application, name) for name in APPLICATIONS},
}


def backbone(name: str, input_shape: Sequence[int] = (32, 32, 3), **options: object) -> keras.Model:
    """Build a backbone by name with fresh weights.

    Args:
        name: "nin", "compact", "alexnet", "resnet50", "resnet50v2", or what `keras.applications` calls its model.
        input_shape: (H, W, C) of raw pixels in [0, 255].
        **options: those of the builder: `width`, `mean`, `std` and, for "nin" and "compact", `blocks`.

    Returns:
        A functional `keras.Model` from (N, H, W, C) to the last block's feature map, or AlexNet's `fc7`.

    Raises:
        ValueError: no backbone has this name.
    """
    if name not in BUILDERS:
        raise ValueError(f"No backbone is called {name!r}. There are: {', '.join(BUILDERS)}.")
    return BUILDERS[name](input_shape, **options)


def build(spec: Backbone, shape: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> keras.Model:
    """The backbone that a recipe describes, with fresh weights, for images of one shape (H, W, C).

    Raises:
        DataError: they are too small for it.
    """
    smallest = ARCHITECTURES[spec.name].min_side
    if min(shape[:2]) < smallest:
        sides = " x ".join(map(str, shape[:2]))
        raise DataError(
            f"{spec.name} takes images of {smallest} pixels a side or more, these have {sides}: set data.size"
        )
    blocks = {} if spec.blocks is None else {"blocks": spec.blocks}
    return backbone(spec.name, shape, width=spec.width, mean=mean, std=std, **blocks)


def layer_outputs(model: keras.Model, names: Sequence[str]) -> dict[str, keras.KerasTensor]:
    """The outputs of some layers of a functional model, by name.

    Raises:
        DataError: it has no such layer.
    """
    missing = [name for name in names if name not in {layer.name for layer in model.layers}]
    if missing:
        last = ", ".join(layer.name for layer in model.layers[-5:])
        raise DataError(f"the backbone has no layer called {', '.join(missing)}; its layers end in {last}")
    return {name: model.get_layer(name).output for name in names}


def taps(model: keras.Model) -> list[str]:
    """Names of the model's taps, from the input on: the layers called `conv<number>`."""
    return [layer.name for layer in model.layers if layer.name[:4] == "conv" and layer.name[4:].isdigit()]


def with_input_shape(model: keras.Model, shape: Sequence[int]) -> keras.Model:
    """The same model, with equal weights, for images of another size (H, W, C).

    Raises:
        DataError: its weights go with the size, as those of a dense layer on a map do.
    """
    have = tuple(model.input.shape[1:])
    if have == tuple(shape):
        return model
    try:
        resized = keras.models.clone_model(model, input_tensors=keras.Input(tuple(shape)))
        resized.set_weights(model.get_weights())
    except ValueError:
        raise DataError(
            f"the backbone takes images of {have}, these are {tuple(shape)}, and its last layers cannot take others: "
            "set data.size, data.channels and augment.crop, or read an earlier layer"
        ) from None
    return resized


def freeze_up_to(model: keras.Model, name: str) -> None:
    """Let the layers up to one, by name, stay as they are.

    Raises:
        DataError: there is none of that name.
    """
    for layer in keras.Model(model.input, layer_outputs(model, [name])[name]).layers:
        layer.trainable = False
