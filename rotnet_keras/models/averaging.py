"""Outputs averaged over an image's mirror image and over shifted crops, as a model of stock Keras layers."""

from collections.abc import Iterator
from typing import Any

from rotnet_keras.config.probes import Averaging
from rotnet_keras.engine import keras
from rotnet_keras.models.backbones.registry import scope_name

# The shift of a crop, as a share of the image's side.
SHIFT = 1 / 8


def averaged(model: keras.Model, over: Averaging) -> keras.Model:
    """A model whose outputs are the means of another model's outputs over several views of an image.

    Feature maps of mirror images are mirrored back before they are averaged, so that places stay where they are.

    Args:
        model: from images (N, H, W, C) to a tensor or {name: tensor}, with vectors (N, D) or maps (N, H, W, D).
        over: "mirror" for the image and its mirror image, which takes twice the time; "crops" for these and both
            shifted by an eighth of a side in four directions, with reflected edges, which takes ten times as long;
            "none" for the image alone.

    Returns:
        A model with the inputs and outputs of `model`; `model` itself for "none".

    Example:
        ```python
        import keras

        from rotnet_keras.models.averaging import averaged

        backbone = keras.models.load_model("runs/my_run/export/backbone.keras")
        symmetric = averaged(backbone, "mirror")
        ```
    """
    if over == "none":
        return model
    inputs = keras.Input(model.input.shape[1:], dtype=model.input.dtype, name=model.input.name)
    outputs = [_outputs(model, view, mirrored) for view, mirrored in _views(inputs, over)]
    if isinstance(model.output, dict):
        means = {
            name: keras.layers.Average(name=scope_name(name))([each[name] for each in outputs]) for name in model.output
        }
    else:
        means = keras.layers.Average()(outputs)
    return keras.Model(inputs, means, name=f"{model.name}_averaged")


def rotated_view(images: Any, angle: int) -> Any:
    """Rotate images in a model of stock layers, as `models.rotation` does in training.

    Args:
        images: the input of a Keras model, (N, H, W, C); squares, unless the angle is 0 or 180.
        angle: 0, 90, 180 or 270 degrees, counter-clockwise.
    """
    if angle == 90:
        return keras.ops.flip(keras.layers.Permute((2, 1, 3))(images), axis=1)
    if angle == 180:
        return keras.ops.flip(images, axis=(1, 2))
    if angle == 270:
        return keras.layers.Permute((2, 1, 3))(keras.ops.flip(images, axis=1))
    return images


def _views(images: Any, over: Averaging) -> Iterator[tuple[Any, bool]]:
    """Yield the views of images, each with whether it is mirrored."""
    shifted = [images]
    if over == "crops":
        height, width = images.shape[1:3]
        down, right = max(1, round(SHIFT * height)), max(1, round(SHIFT * width))
        padded = keras.ops.pad(images, [(0, 0), (down, down), (right, right), (0, 0)], mode="reflect")
        for top, left in ((0, right), (2 * down, right), (down, 0), (down, 2 * right)):
            shifted.append(padded[:, top : top + height, left : left + width])
    for view in shifted:
        yield view, False
        yield keras.ops.flip(view, axis=2), True


def _outputs(model: keras.Model, images: Any, mirrored: bool) -> Any:
    found = model(images)
    if not mirrored:
        return found
    if isinstance(found, dict):
        return {name: _unmirrored(output) for name, output in found.items()}
    return _unmirrored(found)


def _unmirrored(output: Any) -> Any:
    return keras.ops.flip(output, axis=2) if len(output.shape) == 4 else output
