"""The first and the last steps of every kind of run: reading the data, and writing the report."""

from collections.abc import Sequence

from rotnet_keras.config.schema import RunRecipe
from rotnet_keras.config.sections import Augment
from rotnet_keras.data import datasets
from rotnet_keras.data.annotations import AnnotatedDataset
from rotnet_keras.data.batches import crop_size
from rotnet_keras.engine import device_name, keras
from rotnet_keras.errors import DataError
from rotnet_keras.reports.report import write_report
from rotnet_keras.reports.tables import result_tables
from rotnet_keras.runs.suitability import QUESTION, latest_suitability, summary
from rotnet_keras.training.session import Session


def prepare_data(session: Session) -> datasets.Dataset:
    """Read the recipe's data set, record it in `run.json`, and make sure that a resumed run finds the same data.

    Raises:
        DataError: the data are missing or unreadable, or have changed since the run began.
    """
    assert isinstance(session.recipe, RunRecipe)
    dataset = datasets.load(session.recipe.data, session.progress)
    record_data(session, dataset, dataset.image_shape, dataset.class_names)
    return dataset


def record_data(
    session: Session,
    dataset: datasets.Dataset | AnnotatedDataset,
    image_shape: tuple[int, int, int],
    classes: Sequence[str],
) -> None:
    """Record a data set in `run.json`, print its size, and make sure that a resumed run finds the same data.

    Args:
        session: of the run.
        dataset: its splits, fingerprint and notes; the notes become warnings at the first start.
        image_shape: (S, S, C) of the images before augmentation.
        classes: the names of the classes.

    Raises:
        DataError: the data have changed since the run began.
    """
    before = session.folder.facts().get("data")
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    facts = {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "image_shape": list(image_shape),
        "classes": list(classes),
        **{name: 0 if split is None else len(split) for name, split in splits.items()},
    }
    if before and before != facts:
        changed = ", ".join(
            f"{key}: was {before.get(key)}, is {facts[key]}" for key in facts if before.get(key) != facts[key]
        )
        raise DataError(f"the data have changed since this run began ({changed}). Start a new run for the changed data")
    if not before:
        for note in dataset.notes:
            session.warn(note)
    dataset.notes.clear()
    session.record(data=facts, device=device_name())
    counts = ", ".join(f"{facts[name]:,} {name}" for name in splits if facts[name])
    shape = " x ".join(str(n) for n in image_shape)
    session.say(f"{dataset.name}: {counts} images of {shape}")


def backbone_input_shape(dataset: datasets.Dataset, augment: Augment) -> tuple[int, int, int]:
    """The shape (S, S, C) of an unrotated image after augmentation, as a backbone takes it."""
    side = crop_size(augment, dataset.image_shape[0])
    return side, side, dataset.image_shape[2]


def check_input_shape(backbone: keras.Model, dataset: datasets.Dataset, augment: Augment) -> None:
    """Make sure that a backbone takes the images of a data set.

    Raises:
        DataError: their shape differs from the backbone's input.
    """
    have = backbone_input_shape(dataset, augment)
    want = tuple(backbone.input.shape[1:])
    if any(w is not None and w != h for w, h in zip(want, have, strict=True)):
        raise DataError(
            f"the backbone takes images of shape {want}, and these have shape {have}: set data.size and data.channels"
        )


def finish(session: Session) -> None:
    """Write the report, and print its tables and the paths of the results."""
    write_report(session.folder, "finished")
    for title, columns, rows in result_tables(session.folder):
        session.console.table(title, columns, rows)
    folder = session.folder
    if event := latest_suitability(folder.events()):
        session.say(f"{QUESTION} {summary(event)}")
    session.say(f"Report:   {folder.path / 'report.html'}")
    if folder.backbone.is_file():
        session.say(f"Backbone: {folder.backbone}, a plain Keras file: keras.models.load_model(...)")
        recipe = session.folder.facts().get("recipe", session.folder.recipe)
        session.say("Next:     train on your own images: rotnet-keras run folder data.name=/path/to/images")
        session.say(f"          list all recipes: rotnet-keras recipes; read this one: rotnet-keras show {recipe}")
