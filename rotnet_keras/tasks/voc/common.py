"""What transfers to detection and segmentation share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.transfer import CanvasRecipe, TransferRecipe
from rotnet_keras.data.annotations import AnnotatedSplit
from rotnet_keras.data.batches import Spec, shared_batches
from rotnet_keras.data.datasets import IMAGENET_STATISTICS
from rotnet_keras.data.letterbox import Placement, at_random, fitted, lay
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.backbones.registry import build
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.models.export import load_backbone
from rotnet_keras.models.rescaling import evenly_spaced, folded_and_rescaled


def backbone_for(recipe: TransferRecipe, side: int, split: AnnotatedSplit) -> keras.Model:
    """The backbone that a recipe goes on from: the pretrained one, or one from scratch for its canvas.

    Args:
        split: pictures to rescale it by, if it is to be.
    """
    if recipe.backbone:
        # Dense layers go with a size; AlexNet's are made for 224 pixels, and become convolutions.
        backbone = build(recipe.backbone, (min(side, 224), min(side, 224), 3), *IMAGENET_STATISTICS)
    else:
        assert recipe.pretrained is not None
        backbone = load_backbone(Path(str(recipe.pretrained.file)))
    if not recipe.rescale:
        return backbone
    size = backbone.input.shape[1]
    pictures = [lay(split.picture(p), fitted(split.size(p), size), size) for p in evenly_spaced(len(split))]
    return folded_and_rescaled(backbone, np.stack(pictures), recipe.pretrained is None)


def letterboxed_batches(
    recipe: CanvasRecipe,
    split: AnnotatedSplit,
    lay_out: Callable[[list[tuple[int, Placement]]], Sequence[np.ndarray]],
    specs: list[Spec],
    **options: Any,
) -> tf.data.Dataset:
    """Batches of pictures at random places on canvases.

    Args:
        lay_out: makes a batch's arrays of positions in the split and where these pictures are to lie.
        specs: of these arrays.
        **options: `first`, `last` and `replicas` of `shared_batches`.
    """
    canvas = recipe.canvas

    def make(positions: np.ndarray, rng: np.random.Generator, part: np.ndarray | slice) -> list[np.ndarray]:
        drawn = [at_random(split.size(p), canvas.side, canvas.scales, canvas.flip, rng) for p in positions]
        return list(lay_out(list(zip(positions[part], np.array(drawn, object)[part], strict=True))))

    return shared_batches(len(split), make, specs, batch=recipe.train.batch, seed=recipe.seed, **options)


def scale_pretrained_learning_rate(
    model: TrainingModel, recipe: TransferRecipe, fresh: Sequence[keras.Variable]
) -> None:
    """Give what is pretrained its own learning rate.

    Args:
        fresh: the variables that are not.
    """
    if recipe.pretrained and recipe.pretrained.learning_rate:
        share = recipe.pretrained.learning_rate / recipe.optimizer.learning_rate
        others = {id(variable) for variable in fresh}
        model.optimizer.rate_factors = [1.0 if id(v) in others else share for v in model.trainable_variables]
