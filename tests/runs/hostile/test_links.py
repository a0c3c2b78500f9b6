"""Links in a run folder lead nowhere: nothing outside it is read into a report or written."""

import json
import shutil

import pytest
from PIL import Image
from support.command_line import invoke
from support.fake_runs import fake_run

from rotnet_keras.errors import RunError
from rotnet_keras.files import open_file, open_to_append, write_atomically
from rotnet_keras.inference import publishing
from rotnet_keras.reports import figures
from rotnet_keras.reports.report import draw_run_figures, write_report
from rotnet_keras.runs.control import request_stop
from rotnet_keras.runs.events import EventWriter
from rotnet_keras.runs.launch import start_detached
from rotnet_keras.runs.values import file_named
from rotnet_keras.runs.zoo import list_pretrained
from rotnet_keras.tasks import run as task

FILES = ("recipe.toml", "run.json", "events.jsonl", "log.txt", "report.html", "stop", "checkpoints/best.npz")
FOLDERS = ("samples", "figures", "export", "checkpoints")


@pytest.fixture
def secret(tmp_path):
    """A file of the user's, outside of all run folders."""
    file = tmp_path / "home" / "secret"
    file.parent.mkdir()
    file.write_text("mine\n")
    return file


@pytest.fixture
def run(tmp_path):
    return fake_run(tmp_path / "runs", "a", epochs=1)


def linked(run, name, target):
    """Put a link into a run folder in place of what is there."""
    path = run.path / name
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        path.rename(path.with_name(f"{path.name}-before"))
    path.symlink_to(target)


@pytest.mark.parametrize("name", FILES + FOLDERS)
@pytest.mark.parametrize("use", [write_report, start_detached, task.run])
def test_a_run_folder_with_a_link_is_neither_reported_nor_run(run, secret, name, use, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    linked(run, name, secret if name in FILES else secret.parent)
    before = {path: path.read_bytes() for path in secret.parent.iterdir()}
    with pytest.raises(RunError, match=f"{name} is a link, and a run folder holds only"):
        use(run)
    assert {path: path.read_bytes() for path in secret.parent.iterdir()} == before


COMMANDS = (
    ("export", "{run}", "--to", "onnx"),
    ("publish", "{run}", "--to", "model", "--license", "mit"),
    ("publish", "{run}/export/backbone.keras", "--to", "model", "--license", "mit"),
    ("track", "{run}", "--to", "mlflow"),
)


@pytest.mark.parametrize("name", ["run.json", "log.txt", "export", "figures", "export/backbone.keras"])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_run_folder_with_a_link_is_neither_exported_nor_published_nor_tracked(run, secret, name, words, tmp_path):
    """Nothing is written behind the link, and nothing behind it reaches others."""
    run.export.mkdir(exist_ok=True)
    for folder in (run.export, secret.parent):
        shutil.copy(list_pretrained()["compact4_cifar10"].backbone, folder / "backbone.keras")
    there = {"run.json": secret, "log.txt": secret, "export/backbone.keras": secret.parent / "backbone.keras"}
    linked(run, name, there.get(name, secret.parent))
    before = {path.name for path in tmp_path.iterdir()}, {path.name for path in secret.parent.iterdir()}
    result = invoke(*(word.format(run=run.path) for word in words), cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert f"{name} is a link, and a run folder holds only" in result.stderr
    assert ({path.name for path in tmp_path.iterdir()}, {path.name for path in secret.parent.iterdir()}) == before


def test_what_is_published_of_a_run_is_not_behind_a_link(run, secret, tmp_path, monkeypatch):
    """Also where the folder has a link only after it was looked through."""
    run.export.mkdir(exist_ok=True)
    shutil.copy(list_pretrained()["compact4_cifar10"].backbone, run.backbone)
    (secret.parent / "curves.png").write_bytes(b"mine")
    monkeypatch.setattr(publishing, "is_checked", lambda file: True)
    monkeypatch.setattr(publishing, "_check", lambda folder, model: linked(run, "figures", secret.parent) or 1)
    with pytest.raises(OSError, match="not a folder of its own"):
        publishing.publish(run.backbone, tmp_path / "model", "mit")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["events.jsonl", "log.txt", "figures/curves.png", "export/backbone.keras"])
def test_a_file_with_another_name_elsewhere_is_not_written_to(run, secret, name):
    """A hard link: what is written to it would change the other file too."""
    path = run.path / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.hardlink_to(secret)
    for use in (write_report, start_detached, task.run):
        with pytest.raises(RunError, match=f"{name} is a hard link, a file with another name elsewhere"):
            use(run)
    with pytest.raises(OSError, match="another name elsewhere"):
        open_to_append(path, run.path)
    assert secret.read_text() == "mine\n" and secret.stat().st_nlink == 2


def test_what_is_opened_in_a_run_folder_is_not_behind_a_link(run, secret):
    """Also where a folder has a link only after it was looked through."""
    linked(run, "log.txt", secret)
    linked(run, "stop", secret.parent / "new")
    linked(run, "samples", secret.parent)
    for write in (
        lambda: open_to_append(run.log, run.path),
        lambda: open_file(run.log, run.path),
        lambda: request_stop(run),
        lambda: open_file(run.samples / "secret", run.path),
        lambda: write_atomically(run.samples / "secret", b"theirs", run.path),
        lambda: open_file(run.path / ".." / ".." / "home" / "secret", run.path),
    ):
        with pytest.raises(OSError):
            write()
    linked(run, "events.jsonl", secret)
    with pytest.raises(RunError, match="a link"):
        EventWriter(run.events_file)
    assert secret.read_text() == "mine\n" and [path.name for path in secret.parent.iterdir()] == ["secret"]
    assert run.events() == [] and run.last_events() == []


def test_a_file_that_is_replaced_replaces_a_link_of_its_name(run, secret):
    linked(run, "run.json", secret)
    write_atomically(run.facts_file, b"{}", run.path)
    assert secret.read_text() == "mine\n" and not run.facts_file.is_symlink() and run.facts_file.read_text() == "{}"


def test_a_link_is_not_read_as_a_runs_recipe_or_log(run, secret):
    linked(run, "log.txt", secret)
    result = invoke("logs", run.path)
    assert result.returncode == 1 and "a link, where a regular file is expected" in result.stderr
    secret.write_text('kind = "study"\n')
    linked(run, "recipe.toml", secret)
    assert run.recipe_values() == {}
    assert "its recipe.toml is a link, a pipe or a folder, not a file" in invoke("status", run.path).stderr


def test_a_name_in_an_event_does_not_leave_the_folder(run, secret, monkeypatch):
    """The last samples are those of the event whose file is the run's own."""
    drawn = []
    for name in ("draw_curves", "draw_confusion"):
        monkeypatch.setattr(figures, name, lambda *arguments: False)
    monkeypatch.setattr(figures, "draw_samples", lambda event, strip, path, inside: drawn.append(strip))
    secret = secret.with_suffix(".png")
    Image.new("RGB", (8, 8)).save(secret)
    content = secret.read_bytes()
    monkeypatch.setattr("rotnet_keras.reports.report.read_file", lambda *arguments: content)
    with run.events_file.open("a") as file:
        for name in ("../../../home/secret.png", str(secret), "/etc/passwd", "a\0b", "\ud800", 5, None, {}):
            event = {"kind": "samples", "time": 1, "step": 60, "file": name, "tile": 16, "tiles": []}
            file.write(json.dumps(event) + "\n")
            assert file_named(run.samples, name) is None
    draw_run_figures(run, run.events())
    assert drawn == [run.samples / "step-00000060.png"]
