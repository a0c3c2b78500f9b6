"""What transfers to detection and segmentation share."""

from pathlib import Path

from rotnet_keras.backbones import build
from rotnet_keras.datasets import IMAGENET_STATISTICS
from rotnet_keras.engine import keras
from rotnet_keras.exports import load_backbone
from rotnet_keras.trained import Trained
from rotnet_keras.transfer_schema import TransferRecipe


def backbone_for(recipe: TransferRecipe, side: int) -> keras.Model:
    """The backbone that a recipe goes on from: the pretrained one, as it is, or one from scratch for its canvas."""
    if recipe.pretrained:
        return load_backbone(Path(str(recipe.pretrained.file)))
    assert recipe.backbone is not None
    # Dense layers go with a size; AlexNet's are made for 224 pixels, and become convolutions.
    return build(recipe.backbone, (min(side, 224), min(side, 224), 3), *IMAGENET_STATISTICS)


def rate_of_trunk(model: Trained, recipe: TransferRecipe, fresh: int) -> None:
    """Give what is pretrained its own learning rate.

    Args:
        fresh: how many of the trainable variables, the last ones, are not.
    """
    if recipe.pretrained and recipe.pretrained.learning_rate:
        share = recipe.pretrained.learning_rate / recipe.optimizer.learning_rate
        trained = len(model.trainable_variables) - fresh
        model.optimizer.shares = [share] * trained + [1.0] * fresh
