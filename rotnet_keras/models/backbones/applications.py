"""The models of `keras.applications` as backbones: raw pixels as input, taps named `conv1`, `conv2`, ..."""

import inspect
import math
import re
from collections.abc import Sequence

from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError
from rotnet_keras.models.backbones.blocks import pixels

layers = keras.layers

# Layers that change the size of a map and have no weights; a stage does not end in one.
RESIZING = (layers.ZeroPadding2D, layers.Cropping2D, layers.MaxPooling2D, layers.AveragePooling2D)


def application(
    name: str,
    input_shape: Sequence[int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> keras.Model:
    """A model of `keras.applications` without its classifier, with new weights.

    Its own preprocessing is replaced by our normalisation. A tap is the last layer of a resolution that every path from
    the input to the output goes through: the end of a stage, or the layer from which its last branches start. The taps
    are named `conv1`, `conv2`, ... from the input on; other layers keep their names.

    Args:
        name: as in `keras.applications`: "EfficientNetB0", "MobileNetV2", ...
        input_shape: (H, W, C) of raw pixels in [0, 255].
        width: the `alpha` of the MobileNets; other models have none.
        mean, std: of the pixels, for each channel; 127.5 by default.

    Returns:
        A model whose output is the last tap.

    Raises:
        DataError: the images are too small for the model.
    """
    builder = getattr(keras.applications, name)
    known = inspect.signature(builder).parameters
    options: dict[str, object] = {"include_preprocessing": False} if "include_preprocessing" in known else {}
    if "alpha" in known:
        options["alpha"] = width
    # Some models have a layer of their own named `normalization`.
    inputs, x = pixels(input_shape, mean, std, name="of_pixels")
    try:
        built = builder(weights=None, include_top=False, input_tensor=x, **options)
    except ValueError as error:
        side = "x".join(map(str, input_shape[:2]))
        raise DataError(f"{name} cannot be built for images of {side}: {error}") from None
    model = keras.Model(inputs, built.output)
    names = {layer.name: f"conv{number}" for number, layer in enumerate(stage_ends(model), 1)}
    names["of_pixels"] = "normalization"

    def renamed(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, layers.Rescaling | layers.Normalization) and layer.name not in names:
            return layers.Activation("linear", name=f"without_{type(layer).__name__.lower()}")
        taken = re.fullmatch(r"conv\d+", layer.name) and layer.name not in names
        new = names.get(layer.name, f"{layer.name}_layer" if taken else layer.name)
        return type(layer).from_config(layer.get_config() | {"name": new})

    copy = keras.models.clone_model(model, clone_function=renamed)
    last = copy.get_layer(f"conv{len(names) - 1}")
    return keras.Model(copy.input, last.output, name=name.lower())


def stage_ends(model: keras.Model) -> list[keras.layers.Layer]:
    """For each resolution, the last layer that every path from the input to the output goes through."""
    side = model.input.shape[1]
    found: dict[int, keras.layers.Layer] = {}
    learned = False
    for layer in bottlenecks(model):
        learned = learned or isinstance(layer, layers.Conv2D)
        if learned and isinstance(layer, keras.Layer) and not isinstance(layer, RESIZING):
            found[round(math.log2(side / layer.output.shape[1]))] = layer
    return list(found.values())


def bottlenecks(model: keras.Model) -> list[keras.Operation]:
    """The operations of a functional model that no path from its input to its output goes around, in order."""
    uses = {id(op): [id(tensor) for tensor in _inputs(op)] for op in model.operations}
    left: dict[int, int] = {}
    for tensors in uses.values():
        for tensor in tensors:
            left[tensor] = left.get(tensor, 0) + 1
    found, open_tensors = [], set()
    for op in model.operations:
        for tensor in uses[id(op)]:
            left[tensor] -= 1
            if not left[tensor]:
                open_tensors.discard(tensor)
        open_tensors.add(id(op.output))
        if open_tensors == {id(op.output)}:
            found.append(op)
    return found


def _inputs(operation: keras.Operation) -> list[keras.KerasTensor]:
    if isinstance(operation, layers.InputLayer):
        return []
    return operation.input if isinstance(operation.input, list) else [operation.input]
