"""What is written into a run folder follows no link, also one that was put there while the run goes on."""

import ast
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.fake_runs import fake_run

import rotnet_keras
from rotnet_keras.engine import keras
from rotnet_keras.models.export import convert, save_model
from rotnet_keras.reports.figures import draw_curves, draw_filters, filters_figure, save_png_and_svg
from rotnet_keras.reports.projections import write_sample_images
from rotnet_keras.reports.report import draw_run_figures
from rotnet_keras.reports.samples import write_image_strip
from rotnet_keras.runs.exports.classifier_card import ClassifierCard, write_card
from rotnet_keras.training.checkpoints import Position, save_checkpoint

ROOT = Path(rotnet_keras.__file__).parent
KERNELS = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1) * np.ones((3, 4), np.float32)
IMAGES = np.zeros((2, 8, 8, 3), np.uint8)

# Packages that write no run folder: what their user names, caches, and temporary folders.
OTHERS = {"cli", "data", "inference", "planning"}
# Functions that take `inside` and only read, and one whose name is also that of a method of images.
READERS = {"open_file", "read_file", "read_json", "read_toml", "convert"}
# Calls that write by a name alone.
BY_NAME = {
    *("mkdir", "makedirs", "mkdtemp", "touch", "rename", "symlink_to", "hardlink_to", "write_text", "write_bytes"),
    *("TemporaryDirectory", "NamedTemporaryFile", "copyfile", "copytree", "open_memmap", "make_private_folder"),
}
# Calls that write to what they are given first: a name, or a buffer in memory.
TO_FIRST = {"save", "savefig", "savez", "savez_compressed"}
# What writes elsewhere, and what cannot be given an open folder.
PLACES = {
    # Keras and its converters write by names: into a folder with a random name.
    "models/export.py save_model": ["TemporaryDirectory", "save"],
    "models/export.py convert": ["TemporaryDirectory"],
    # A member of an archive that is open.
    "models/export.py write_portable": ["open"],
    # A new run folder is filled under a random name, and one that is deleted is renamed as a whole.
    "runs/launch.py create_run": ["mkdir", "mkdir", "rename", "write_text", "write_text"],
    "runs/control.py remove_run": ["rename"],
    # The folder that holds the runs.
    "runs/queue.py queue_facts": ["mkdir"],
    "runs/queue.py start_worker": ["mkdir"],
    "runs/queue.py run_worker": ["mkdir"],
    # What the user names.
    "models/rescaling.py rescale_file": ["save_model"],
    "models/torch_import/convert.py convert_original": ["mkdir", "save_model", "save_model"],
    "reports/study_pages.py collect": ["mkdir"],
    "runs/zoo.py copy_pretrained": ["TemporaryDirectory", "copytree", "rename"],
    # Folders of this user's, of trackers and of the system.
    "runs/cluster/submission.py submit_run": ["make_private_folder"],
    "runs/exports/model_files.py remember_checked": ["mkdir", "open"],
    "runs/queue.py _key": ["hardlink_to", "make_private_folder", "write_atomically"],
    "runs/tracking/wandb_tracker.py attach": ["copyfile", "mkdir", "save"],
    "training/cluster.py worker_folder": ["mkdtemp"],
}


@pytest.fixture
def run(tmp_path):
    return fake_run(tmp_path / "runs", "a", epochs=1)


@pytest.fixture
def secret(tmp_path):
    """A file of the user's, outside of all run folders."""
    file = tmp_path / "home" / "secret"
    file.parent.mkdir()
    file.write_text("mine\n")
    return file


def small_model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def write_checkpoint(run):
    save_checkpoint(run.checkpoints, [keras.Variable(np.zeros(2, np.float32))], Position(step=1), best=True)


def write_export(run):
    save_model(small_model(), run.export / "backbone.keras", run.path)


def write_classifier_card(run):
    write_card(run.export / "classifier.keras", ClassifierCard(["a", "b"], None, "why"), run.path)


def write_filters(run):
    draw_filters(KERNELS, run.figures / "filters.png", run.path)


def write_curves(run):
    draw_curves(run.events(), 4, "accuracy", run.figures / "curves.png", run.path)


def write_picture(run):
    save_png_and_svg(filters_figure(KERNELS), run.figures / "picture-0.png", run.path)


def write_strip(run):
    write_image_strip(run, "step-00000001.png", IMAGES)


def write_sample(run):
    write_sample_images(run, IMAGES)


def write_figures(run):
    draw_run_figures(run, run.events())


def convert_export(run):
    save_model(small_model(), run.path / "model.keras")
    convert(run.path / "model.keras", "litert", run.export / "backbone.tflite", run.path)


WRITES = {
    write_checkpoint: ("checkpoints", ["best.npz", "step-00000001.npz"]),
    write_export: ("export", ["backbone.keras"]),
    write_classifier_card: ("export", ["classifier.json"]),
    write_filters: ("figures", ["filters.png"]),
    write_curves: ("figures", ["curves.png"]),
    write_picture: ("figures", ["picture-0.png", "picture-0.svg"]),
    write_figures: ("figures", ["curves.png", "samples.png"]),
    write_strip: ("samples", ["step-00000001.png"]),
    write_sample: ("samples", ["images.png"]),
}


@pytest.mark.parametrize("write", [*WRITES, convert_export])
def test_what_a_run_writes_is_not_behind_a_link(run, secret, write, monkeypatch):
    def exported(model, path, **options):
        path.write_bytes(b"exported")

    monkeypatch.setattr(keras.Model, "export", exported)
    folder = run.path / WRITES.get(write, ("export",))[0]
    if folder.exists():
        folder.rename(folder.with_name("before"))
    folder.symlink_to(secret.parent)
    with pytest.raises(OSError, match="not a folder of its own"):
        write(run)
    assert [path.name for path in secret.parent.iterdir()] == ["secret"]
    assert not list(run.path.glob(".export*"))


@pytest.mark.parametrize("write", WRITES)
def test_what_a_run_writes_replaces_a_link_of_its_name(run, secret, write):
    folder, names = WRITES[write]
    (run.path / folder).mkdir(exist_ok=True)
    for name in names:
        (run.path / folder / name).unlink(missing_ok=True)
        (run.path / folder / name).symlink_to(secret)
    write(run)
    assert secret.read_text() == "mine\n"
    for name in names:
        path = run.path / folder / name
        assert not path.is_symlink() and path.stat().st_size > 10


def test_every_write_into_a_run_folder_names_the_folder():
    """So that it follows no link: see `files.py`."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
    writers = {
        node.name: [argument.arg for argument in node.args.args].index("inside")
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and "inside" in [argument.arg for argument in node.args.args]
        if node.name not in READERS
    }
    assert {"write_atomically", "make_folder", "save_model", "draw_curves", "extract_features"} <= writers.keys()
    found: dict[str, list[str]] = {}
    for path, tree in trees.items():
        place = path.relative_to(ROOT)
        if len(place.parts) > 1 and place.parts[0] not in OTHERS:
            for function in functions(tree):
                names = sorted(filter(None, map(partial(written, writers, function), calls(function))))
                if names:
                    found[f"{place} {function.name}"] = names
    assert found == PLACES


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def calls(function):
    """The calls in a function, without those in functions of its own."""
    inner = {node for each in functions(function) if each is not function for node in ast.walk(each)}
    return [node for node in ast.walk(function) if isinstance(node, ast.Call) and node not in inner]


def written(writers, function, call):
    """The name of a function that is called to write by a name alone; None for any other call."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in writers:
        given = {keyword.arg: keyword.value for keyword in call.keywords}.get("inside")
        given = call.args[writers[name]] if len(call.args) > writers[name] else given
        return name if given is None or ast.unparse(given) == "None" else None
    if name in TO_FIRST:
        buffers = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and ast.unparse(node.value).removeprefix("io.") == "BytesIO()"
            for target in node.targets
        }
        return None if call.args and ast.unparse(call.args[0]) in buffers else name
    if name == "open":
        modes = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        modes = [str(mode.value) for mode in modes if isinstance(mode, ast.Constant)]
        return name if any(set(mode) & set("wax+") and len(mode) < 4 for mode in modes) else None
    return name if name in BY_NAME else None
