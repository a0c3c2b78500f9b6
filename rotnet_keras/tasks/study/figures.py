"""The pictures of a study: attention maps, how they turn with the image, first-layer filters."""

from pathlib import Path

import numpy as np

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import RunRecipe
from rotnet_keras.config.sections import Augment
from rotnet_keras.config.study import Picture
from rotnet_keras.data import datasets
from rotnet_keras.data.batches import centred
from rotnet_keras.engine import keras
from rotnet_keras.evaluation.attention import attention, equivariance_scores, rotated_attention_maps
from rotnet_keras.evaluation.features import feature_extractor
from rotnet_keras.models.export import first_kernels, load_backbone
from rotnet_keras.reports.figures import filters_figure, save_png_and_svg
from rotnet_keras.reports.map_figures import attention_figure, equivariance_figure
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import check_input_shape

SHOWN = 8
TURNED = 3
# What the score of turning is averaged over.
SCORED = 1000


def draw_figures(session: Session, pictures: list[Picture], folders: dict[str, RunFolder]) -> None:
    """Draw what a study asks for, and tell of it in an event each.

    Args:
        folders: of the study's finished runs with its first seed, by name.
    """
    session.folder.figures.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        models = {label: load_backbone(folders[run].backbone) for label, run in picture.models.items()}
        path = session.folder.figures / f"picture-{number}.png"
        if picture.kind == "filters":
            (model,) = models.values()
            save_png_and_svg(filters_figure(first_kernels(model)), path)
            scores: dict[str, float] = {}
        else:
            images = _images(folders[next(iter(picture.models.values()))], models)
            scores = (_attention if picture.kind == "attention" else _turning)(picture, models, images, path)
        session.event("picture", number=number, file=path.name, title=picture.title, scores=scores)


def _images(run: RunFolder, models: dict[str, keras.Model]) -> np.ndarray:
    """Test images as the backbones take them, the first that there are: (N, S, S, C) uint8."""
    recipe = load_recipe(run.recipe)
    assert isinstance(recipe, RunRecipe)
    augment = getattr(recipe, "augment", Augment())
    dataset = datasets.load(recipe.data)
    for model in models.values():
        check_input_shape(model, dataset, augment)
    split = dataset.test or dataset.validation or dataset.train
    return centred(split.images(np.arange(min(SCORED, len(split)))), augment)


def _attention(picture: Picture, models: dict[str, keras.Model], images: np.ndarray, path: Path) -> dict[str, float]:
    shown = images[:SHOWN]
    maps = {}
    for label, model in models.items():
        features = feature_extractor(model, picture.taps).predict(shown, verbose=0)
        for tap, power in zip(picture.taps, picture.powers, strict=True):
            maps[f"{label}\n{tap}"] = attention(np.asarray(features[tap]), power)
    save_png_and_svg(attention_figure(shown, maps), path)
    return {}


def _turning(picture: Picture, models: dict[str, keras.Model], images: np.ndarray, path: Path) -> dict[str, float]:
    scores, shown = {}, {}
    for label, model in models.items():
        for tap, power in zip(picture.taps, picture.powers, strict=True):
            maps = rotated_attention_maps(model, tap, images, power)
            scores[f"{label}, {tap}"] = float(equivariance_scores(maps).mean())
            shown[f"{label}\n{tap}"] = maps[:TURNED]
    save_png_and_svg(equivariance_figure(images[:TURNED], shown), path)
    return scores
