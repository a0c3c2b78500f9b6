"""What transfers to detection and to segmentation share: backbone, training batches and learning rates."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.transfer import CanvasRecipe, TransferRecipe
from rotnet_keras.data.annotations import AnnotatedSplit
from rotnet_keras.data.batches import Spec, step_batches
from rotnet_keras.data.datasets import IMAGENET_STATISTICS
from rotnet_keras.data.letterbox import Placement, fitted_placement, letterbox_image, random_placement
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.backbones.registry import build_backbone
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.models.export import load_backbone
from rotnet_keras.models.rescaling import evenly_spaced, folded_and_rescaled
from rotnet_keras.training.optimizers import scale_learning_rate


def backbone_for(recipe: TransferRecipe, side: int, split: AnnotatedSplit) -> keras.Model:
    """Load the pretrained backbone of a recipe, or build a new one for its letterboxed images.

    Args:
        side: height and width of the letterboxed images, in pixels.
        split: the training images. Some of them set the scale of each layer if the recipe says `rescale`.
    """
    if recipe.backbone:
        # Dense layers fix the input size, 224 pixels for AlexNet; a segmenter turns them into convolutions.
        backbone = build_backbone(recipe.backbone, (min(side, 224), min(side, 224), 3), *IMAGENET_STATISTICS)
    else:
        assert recipe.pretrained is not None
        backbone = load_backbone(Path(str(recipe.pretrained.file)))
    if not recipe.rescale:
        return backbone
    size = backbone.input.shape[1]
    images = [
        letterbox_image(split.image(index), fitted_placement(split.size(index), size), size)
        for index in evenly_spaced(len(split))
    ]
    return folded_and_rescaled(backbone, np.stack(images), recipe.pretrained is None)


def letterboxed_batches(
    recipe: CanvasRecipe,
    split: AnnotatedSplit,
    make_arrays: Callable[[list[tuple[int, Placement]]], Sequence[np.ndarray]],
    specs: list[Spec],
    **options: Any,
) -> tf.data.Dataset:
    """Return training batches of letterboxed images, at random scales and offsets, mirrored at random.

    Args:
        make_arrays: makes the arrays of a batch from (index in the split, placement) of each image.
        specs: shapes and dtypes of these arrays, without the batch dimension.
        **options: `first`, `last` and `replicas` of `step_batches`.
    """
    canvas = recipe.canvas

    def make(indices: np.ndarray, rng: np.random.Generator, part: np.ndarray | slice) -> list[np.ndarray]:
        placements = [
            random_placement(split.size(index), canvas.side, canvas.scales, canvas.flip, rng) for index in indices
        ]
        return list(make_arrays(list(zip(indices[part], np.array(placements, object)[part], strict=True))))

    return step_batches(len(split), make, specs, batch=recipe.train.batch, seed=recipe.seed, **options)


def scale_learning_rates(model: TrainingModel, recipe: TransferRecipe, fresh: Sequence[keras.Variable]) -> None:
    """Set the learning rates of the pretrained variables and of the biases, if the recipe gives them some.

    Args:
        fresh: the variables that are not pretrained.
    """
    rate = recipe.optimizer.learning_rate
    pretrained = (recipe.pretrained.learning_rate if recipe.pretrained else None) or rate
    scale_learning_rate(model, pretrained / rate, fresh, recipe.bias_rate)
