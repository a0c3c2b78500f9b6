"""The figures of a study: attention maps, their equivariance to rotation, and first-layer filters."""

from pathlib import Path

import numpy as np

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import RunRecipe
from rotnet_keras.config.sections import Augment
from rotnet_keras.config.study import Picture
from rotnet_keras.data import datasets
from rotnet_keras.data.batches import center_crop
from rotnet_keras.data.stores import known_places
from rotnet_keras.data.values.ranges import displayed, known_range
from rotnet_keras.engine import keras
from rotnet_keras.evaluation.attention import attention_maps, equivariance_scores, rotated_attention_maps
from rotnet_keras.evaluation.features import feature_extractor
from rotnet_keras.files import make_folder
from rotnet_keras.models.export import first_kernels, load_backbone
from rotnet_keras.reports.figures import filters_figure, save_png_and_svg
from rotnet_keras.reports.map_figures import attention_figure, equivariance_figure
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import check_input_shape

# Images in a figure of attention maps.
ATTENTION_IMAGES = 8
# Images in a figure of attention maps of rotated copies.
EQUIVARIANCE_IMAGES = 3
# Images over which the equivariance score is averaged.
SCORED_IMAGES = 1000


def draw_figures(session: Session, pictures: list[Picture], folders: dict[str, RunFolder]) -> None:
    """Draw the figures of a study and write an event for each.

    Args:
        session: the session of the study.
        pictures: the sections `[[picture]]` of its recipe.
        folders: the study's finished runs with its first seed, by name.
    """
    inside = session.folder.path
    make_folder(session.folder.figures, inside)
    for number, picture in enumerate(pictures):
        models = {label: load_backbone(folders[run].backbone) for label, run in picture.models.items()}
        path = session.folder.figures / f"picture-{number}.png"
        if picture.kind == "filters":
            (model,) = models.values()
            save_png_and_svg(filters_figure(first_kernels(model)), path, inside)
            scores: dict[str, float] = {}
        else:
            images = _images(folders[next(iter(picture.models.values()))], models)
            scores = (_attention if picture.kind == "attention" else _equivariance)(
                picture, models, images, path, inside
            )
        session.event("picture", number=number, file=path.name, title=picture.title, scores=scores)


def _images(run: RunFolder, models: dict[str, keras.Model]) -> np.ndarray:
    """Return the first test images, cropped as the run crops them, (N, H, W, C).

    Without a test split they come from the validation split, and without that from the training split.
    """
    recipe = load_recipe(run.recipe)
    assert isinstance(recipe, RunRecipe)
    augment = getattr(recipe, "augment", Augment())
    dataset = datasets.load(recipe.data, kept=known_places(run.facts()), values=known_range(run.facts()))
    for model in models.values():
        check_input_shape(model, dataset, augment)
    split = dataset.test or dataset.validation or dataset.train
    return center_crop(split.images(np.arange(min(SCORED_IMAGES, len(split)))), augment, split.values)


def _attention(
    picture: Picture, models: dict[str, keras.Model], images: np.ndarray, path: Path, inside: Path
) -> dict[str, float]:
    shown = images[:ATTENTION_IMAGES]
    maps = {}
    for label, model in models.items():
        features = feature_extractor(model, picture.taps).predict(shown, verbose=0)
        for tap, power in zip(picture.taps, picture.powers, strict=True):
            maps[f"{label}\n{tap}"] = attention_maps(np.asarray(features[tap]), power)
    save_png_and_svg(attention_figure(displayed(shown, None), maps), path, inside)
    return {}


def _equivariance(
    picture: Picture, models: dict[str, keras.Model], images: np.ndarray, path: Path, inside: Path
) -> dict[str, float]:
    scores, shown = {}, {}
    for label, model in models.items():
        for tap, power in zip(picture.taps, picture.powers, strict=True):
            maps = rotated_attention_maps(model, tap, images, power)
            scores[f"{label}, {tap}"] = float(equivariance_scores(maps).mean())
            shown[f"{label}\n{tap}"] = maps[:EQUIVARIANCE_IMAGES]
    save_png_and_svg(equivariance_figure(displayed(images[:EQUIVARIANCE_IMAGES], None), shown), path, inside)
    return scores
