"""The first and the last steps of every kind of run: reading the data, and writing the report."""

from collections.abc import Sequence

from rotnet_keras.config.schema import RunRecipe
from rotnet_keras.config.sections import Augment
from rotnet_keras.data import datasets
from rotnet_keras.data.annotations import AnnotatedDataset
from rotnet_keras.data.audit import understand
from rotnet_keras.data.batches import crop_shape
from rotnet_keras.data.decoding import DECODER
from rotnet_keras.data.fingerprints import in_form_of
from rotnet_keras.data.sources import find_source
from rotnet_keras.data.stores import PLACES, SPLITS, known_places
from rotnet_keras.data.values.ranges import known_range
from rotnet_keras.engine import device_name, keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.reports.report import write_report
from rotnet_keras.reports.tables import result_tables
from rotnet_keras.runs.exports.backbone_file import DEFAULT_TAP, choose_tap, read_backbone
from rotnet_keras.runs.feature_quality import advice
from rotnet_keras.runs.next_steps import next_steps
from rotnet_keras.runs.suitability import QUESTION, latest_suitability, summary
from rotnet_keras.training.cluster import TrainingProcess
from rotnet_keras.training.devices import broadcast_from_chief
from rotnet_keras.training.session import Session


def prepare_data(session: Session, strategy: tf.distribute.Strategy | None = None) -> datasets.Dataset:
    """Read the recipe's data set, record it in `run.json`, and make sure that a resumed run finds the same data.

    Where decoded images are kept is chosen at the first start. Later starts and other processes keep to it.

    Args:
        session: of the run.
        strategy: of the devices, if several processes may train together.

    Raises:
        DataError: the data are missing or unreadable, or have changed since the run began.
    """
    assert isinstance(session.recipe, RunRecipe)
    data, process = session.recipe.data, session.process
    source = find_source(data)
    for what, sentence in understand(data, source) if process.chief else []:
        session.say(f"  {what}: {sentence}")
    if process.chief and (derived := session.folder.facts().get("derived")):
        session.say(f"  backbone: {derived}")
    kept = known_places(session.folder.facts())
    values = known_range(session.folder.facts())
    dataset = datasets.load(data, session.progress, kept, values, source)
    if dataset.values and values is None and session.folder.facts().get("data"):
        raise DataError(
            "an earlier version of rotnet-keras began this run and scaled the values of its images to 8 bits, and they "
            "are kept as they are now. Start a new run"
        )
    if strategy and process.count > 1:
        chosen = _chosen_by_chief(strategy, process, kept)
        if chosen != kept:
            kept = chosen
            dataset = datasets.load(data, session.progress, kept, values, source)
    if dataset.values and process.chief:
        session.say(f"  values: {dataset.values.sentence()}; the model scales them")
    session.record(kept_images=kept or None, value_range=dataset.values and dataset.values.facts())
    record_data(session, dataset, dataset.image_shape, dataset.class_names)
    return dataset


def _chosen_by_chief(
    strategy: tf.distribute.Strategy, process: TrainingProcess, kept: dict[str, str]
) -> dict[str, str]:
    """Return where the chief keeps the decoded images of each split."""
    # The choices travel as the digits of a number, which a broadcast can carry.
    code = 0
    for split in SPLITS:
        code = code * (len(PLACES) + 1) + (PLACES.index(kept[split]) + 1 if split in kept else 0)
    code, chosen = broadcast_from_chief(strategy, process, [], code), {}
    for split in reversed(SPLITS):
        code, place = divmod(code, len(PLACES) + 1)
        if place:
            chosen[split] = PLACES[place - 1]
    return chosen


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
        image_shape: (H, W, C) of the images before augmentation.
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
    recorded = str((before or {}).get("fingerprint"))
    comparable = facts | {"fingerprint": in_form_of(recorded, dataset.fingerprint, dataset.old_fingerprint)}
    if before and before != comparable:
        changed = ", ".join(
            f"{key}: was {before.get(key)}, is {comparable[key]}"
            for key in comparable
            if before.get(key) != comparable[key]
        )
        raise DataError(f"the data have changed since this run began ({changed}). Start a new run for the changed data")
    if before and comparable != facts:
        session.say(
            "An earlier version began this run. Its data are compared by names and sizes, and by content from now on."
        )
    if not before:
        for note in dataset.notes:
            session.warn(note)
    dataset.notes.clear()
    resampled = isinstance(dataset, datasets.Dataset) and dataset.resampled
    if before and resampled and session.folder.facts().get("decoder") != DECODER:
        session.warn(
            "an earlier version of rotnet-keras began this run and decoded images in another way: from here on its "
            "images differ by a few levels, so it is no exact repetition"
        )
    session.record(data=facts, device=device_name(), decoder=DECODER)
    counts = ", ".join(f"{facts[name]:,} {name}" for name in splits if facts[name])
    shape = " x ".join(str(n) for n in image_shape)
    session.say(f"{dataset.name}: {counts} images of {shape}")


def backbone_input_shape(dataset: datasets.Dataset, augment: Augment) -> tuple[int, int, int]:
    """The shape (H, W, C) of an unrotated image after augmentation, as a backbone takes it."""
    return *crop_shape(augment, dataset.image_shape), dataset.image_shape[2]


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
    """Choose the default tap, write the report, and print its tables and the paths of the results."""
    exported = session.folder.backbone
    if exported.is_file():
        session.record(**{DEFAULT_TAP: choose_tap(read_backbone(exported).layers, session.folder.events())})
    write_report(session.folder, "finished")
    for title, columns, rows in result_tables(session.folder):
        session.console.table(title, columns, rows)
    folder = session.folder
    events = folder.events()
    if event := latest_suitability(events):
        session.say(f"{QUESTION} {summary(event)}")
    if sentence := advice(events):
        session.say(f"Features without labels: {sentence}")
    session.say(f"Report:   {folder.path / 'report.html'}")
    if folder.backbone.is_file():
        session.say(f"Backbone: {folder.backbone}, a plain Keras file: keras.models.load_model(...)")
    for number, step in enumerate(next_steps(folder)):
        session.say(f"{'' if number else 'Next:':10}{step}")
