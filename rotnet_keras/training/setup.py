"""What every kind of run begins and ends with."""

from collections.abc import Sequence

from rotnet_keras.config.schema import RunRecipe
from rotnet_keras.config.sections import Augment
from rotnet_keras.data import datasets
from rotnet_keras.data.annotations import AnnotatedDataset
from rotnet_keras.data.batches import crop_size
from rotnet_keras.engine import device_name, keras
from rotnet_keras.errors import DataError
from rotnet_keras.reports.report import result_tables, write_report
from rotnet_keras.runs.suitability import QUESTION, latest_suitability, summary
from rotnet_keras.training.session import Session


def prepare_data(session: Session) -> datasets.Dataset:
    """Read the recipe's data, tell what there is, and make sure that a resumed run finds the same.

    Raises:
        DataError: the data are missing, or have changed since the run began.
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
    """Tell what data there are, and make sure that a resumed run finds the same.

    Args:
        image_shape: (S, S, C) of what training sees.
        classes: that are told apart.

    Raises:
        DataError: they have changed since the run began.
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
            f"{key}: {before.get(key)} then, {facts[key]} now" for key in facts if before.get(key) != facts[key]
        )
        raise DataError(f"the data have changed since this run began ({changed}); start a new run")
    if not before:
        for note in dataset.notes:
            session.warn(note)
    dataset.notes.clear()
    session.record(data=facts, device=device_name())
    counts = ", ".join(f"{facts[name]:,} {name}" for name in splits if facts[name])
    shape = " x ".join(str(n) for n in image_shape)
    session.say(f"{dataset.name}: {counts} images of {shape}")


def backbone_input_shape(dataset: datasets.Dataset, augment: Augment) -> tuple[int, int, int]:
    """What a network sees of an upright image: (S, S, C)."""
    side = crop_size(augment, dataset.image_shape[0])
    return side, side, dataset.image_shape[2]


def check_input_shape(backbone: keras.Model, dataset: datasets.Dataset, augment: Augment) -> None:
    """Make sure that a backbone takes the images of a data set.

    Raises:
        DataError: it does not.
    """
    have = backbone_input_shape(dataset, augment)
    want = tuple(backbone.input.shape[1:])
    if any(w is not None and w != h for w, h in zip(want, have, strict=True)):
        raise DataError(f"the backbone takes images of {want}, these are {have}: set data.size and data.channels")


def finish(session: Session) -> None:
    """Write the report and show what came out."""
    write_report(session.folder, "finished")
    for title, columns, rows in result_tables(session.folder):
        session.console.table(title, columns, rows)
    folder = session.folder
    if event := latest_suitability(folder.events()):
        session.say(f"{QUESTION} {summary(event)}")
    session.say(f"Report:   {folder.path / 'report.html'}")
    if folder.backbone.is_file():
        session.say(f"Backbone: {folder.backbone}, a plain Keras file: keras.models.load_model(...)")
        session.say("Next:     your own images: rotnet-keras run folder data.name=/path/to/images")
        session.say(
            "          all recipes: rotnet-keras recipes; what this one says: rotnet-keras show " + _recipe(session)
        )


def _recipe(session: Session) -> str:
    return str(session.folder.facts().get("recipe", session.folder.recipe))
