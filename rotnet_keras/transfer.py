"""What transfers to detection and segmentation share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rotnet_keras.annotations import AnnotatedSplit
from rotnet_keras.backbones import build
from rotnet_keras.canvases import fitted, lay
from rotnet_keras.datasets import IMAGENET_STATISTICS
from rotnet_keras.engine import keras
from rotnet_keras.exports import load_backbone
from rotnet_keras.rescaling import evenly, rescaled
from rotnet_keras.trained import Trained
from rotnet_keras.transfer_schema import TransferRecipe


def backbone_for(recipe: TransferRecipe, side: int, split: AnnotatedSplit) -> keras.Model:
    """The backbone that a recipe goes on from: the pretrained one, or one from scratch for its canvas.

    Args:
        split: pictures to rescale it by, if it is to be.
    """
    if recipe.pretrained:
        backbone = load_backbone(Path(str(recipe.pretrained.file)))
    else:
        assert recipe.backbone is not None
        # Dense layers go with a size; AlexNet's are made for 224 pixels, and become convolutions.
        backbone = build(recipe.backbone, (min(side, 224), min(side, 224), 3), *IMAGENET_STATISTICS)
    if not recipe.rescale:
        return backbone
    size = backbone.input.shape[1]
    pictures = [lay(split.picture(p), fitted(split.size(p), size), size) for p in evenly(len(split))]
    return rescaled(backbone, np.stack(pictures), recipe.pretrained is None)


def rate_of_trunk(model: Trained, recipe: TransferRecipe, fresh: Sequence[keras.Variable]) -> None:
    """Give what is pretrained its own learning rate.

    Args:
        fresh: the variables that are not.
    """
    if recipe.pretrained and recipe.pretrained.learning_rate:
        share = recipe.pretrained.learning_rate / recipe.optimizer.learning_rate
        others = {id(variable) for variable in fresh}
        model.optimizer.shares = [1.0 if id(v) in others else share for v in model.trainable_variables]
