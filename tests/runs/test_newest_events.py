"""What is read of the end of a run's events, however large they are."""

import json

import pytest
from support.command_line import invoke

from rotnet_keras.reports.tables import probe_tables
from rotnet_keras.runs.events import TAIL_BYTES, EventWriter, lines_from_end
from rotnet_keras.runs.exports.backbone_file import best_probe
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.launch import create_run
from rotnet_keras.runs.processes import Process
from rotnet_keras.runs.status import summary

RECIPE = 'kind = "pretrain"\n[backbone]\nname = "nin"\nblocks = 4\n[data]\nname = "cifar10"\n[[probe]]\nhead = "mlp"\n'
CLASSES = 100


@pytest.fixture
def writer(tmp_path):
    """Writes the events of a run in `tmp_path/a`."""
    run = create_run(tmp_path, "a", RECIPE, {"steps": 60, "steps_per_epoch": 20})
    writer = EventWriter(run.events_file)
    yield writer
    writer.close()


def write_training(writer, steps=60, loss=0.5):
    for step in range(10, steps + 1, 10):
        rates = {"learning_rate": 0.1, "images_per_s": 10.0, "data_wait": 0.0}
        writer.write("step", step=step, epoch=step / 20, loss=loss, accuracy=0.5, **rates)
        if step % 20 == 0:
            writer.write("epoch", step=step, epoch=step / 20, loss=loss, accuracy=0.5,
                         validation={"loss": loss, "accuracy": step / 100, "confusion": []})  # fmt: skip
            writer.write("checkpoint", step=step, file="x.npz", best=True)


def write_probes(writer, step, top1, weights=("rotnet", "random", "pixels")):
    """Probes of 100 classes: each event is some 30 KB."""
    confusion = [[100] * CLASSES for _ in range(CLASSES)]
    for kind in weights:
        for tap, less in (("conv1", 0.1), ("conv2", 0.0)):
            value = top1 - less - (0.2 if kind != "rotnet" else 0)
            read = "pixels" if kind == "pixels" else tap
            writer.write("probe", probe=0, step=step, weights=kind, tap=read, head="mlp",
                         labels_per_class=None, top1=value, validation_top1=value,
                         per_class=[value] * CLASSES, confusion=confusion)  # fmt: skip


def test_a_finished_run_of_a_hundred_classes_shows_all_its_results(writer, tmp_path):
    write_training(writer)
    write_probes(writer, 60, 0.4)
    writer.write("end", outcome="finished", exit_code=0, message="")
    run = RunFolder(tmp_path / "a")
    assert run.events_file.stat().st_size > 2 * TAIL_BYTES
    found = json.loads(invoke("status", run.path, "--json").stdout)
    assert found["state"] == "finished" and found["object_accuracy"] == pytest.approx(0.4)
    assert found["rotation_accuracy"] == pytest.approx(0.6) and found["step"] == 60 and found["loss"] == 0.5


def test_probes_of_earlier_steps_and_steps_that_were_repeated_do_not_count(writer, tmp_path):
    run = RunFolder(tmp_path / "a")
    write_training(writer, 40)
    write_probes(writer, 20, 0.9)
    write_probes(writer, 40, 0.8)
    writer.write("resume", step=20)
    found = summary(run)
    assert found["step"] == 20 and found["object_accuracy"] == pytest.approx(0.9)
    write_training(writer, 60, 0.25)
    write_probes(writer, 60, 0.5)
    found = summary(run)
    assert found["step"] == 60 and found["loss"] == 0.25 and found["object_accuracy"] == pytest.approx(0.5)
    assert best_probe(run.events())["top1"] == pytest.approx(0.5)


def test_one_event_may_be_larger_than_what_is_read_at_first(writer, tmp_path):
    writer.write("probe", step=1, weights="rotnet", tap="x" * 3 * TAIL_BYTES, labels_per_class=None, top1=0.5)
    run = RunFolder(tmp_path / "a")
    assert [event["kind"] for event in run.last_events()] == ["probe"]
    writer.write("end", outcome="finished", message="")
    assert run.state() == "finished"


@pytest.mark.parametrize("length", [10, TAIL_BYTES - 1, TAIL_BYTES, 5 * TAIL_BYTES])
def test_a_torn_line_of_any_length_takes_no_event_with_it(writer, tmp_path, length):
    writer.write("start", pid=1)
    writer.close()
    run = RunFolder(tmp_path / "a")
    for before in (1, 0):
        whole = run.events_file.read_bytes() if before else b""
        run.events_file.write_bytes(whole + b"x" * length)
        assert list(lines_from_end(run.events_file)) == whole.splitlines()
        again = EventWriter(run.events_file)
        again.write("step", step=1)
        again.close()
        assert [event["kind"] for event in run.events()] == ["start", "step"][1 - before :]


def test_a_run_that_ends_between_two_reads_was_not_killed(writer, tmp_path, monkeypatch):
    write_training(writer)
    run = RunFolder(tmp_path / "a")
    run.facts_file.write_text(json.dumps({**run.facts(), "pid": 1}))

    def ends(identity):
        """The process lives when it is looked for, and is gone at once after its last event."""
        if not any(event["kind"] == "end" for event in run.last_events()):
            writer.write("end", outcome="finished", exit_code=0, message="")
            return Process.RUNNING
        return Process.GONE

    monkeypatch.setattr("rotnet_keras.runs.processes.find", ends)
    assert run.state() == "finished"
    run.events_file.write_bytes(b"\n".join(run.events_file.read_bytes().splitlines()[:-1]) + b"\n")
    assert summary(run)["state"] == "finished"


def test_a_run_that_is_resumed_between_two_reads_was_not_killed(writer, tmp_path, monkeypatch):
    write_training(writer)
    run = RunFolder(tmp_path / "a")
    run.facts_file.write_text(json.dumps({**run.facts(), "pid": 1}))

    def resumes(identity):
        if identity["pid"] == 1:
            run.facts_file.write_text(json.dumps({**run.facts(), "pid": 2}))
            return Process.GONE
        return Process.RUNNING

    monkeypatch.setattr("rotnet_keras.runs.processes.find", resumes)
    assert run.state() == "running"


def probed(tmp_path, name, recipe, facts):
    run = create_run(tmp_path, name, recipe, facts)
    writer = EventWriter(run.events_file)
    for tap in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        writer.write("probe", probe=0, step=0, weights="rotnet", tap=tap, head="mlp", labels_per_class=None, top1=0.5,
                     validation_top1=0.5, per_class=[0.5] * 10, confusion=[])  # fmt: skip
    writer.close()
    return run


PROBE_RECIPE = """kind = "probe"
[backbone]
file = "{file}"
[data]
name = "cifar10"
[[probe]]
head = "mlp"
"""
PAPER = {3: ["85.45", "88.26", "62.09", "", ""], 5: ["85.04", "89.76", "86.82", "74.50", "50.37"]}


@pytest.mark.parametrize("blocks", [3, 5])
def test_a_probe_is_compared_with_the_paper_by_its_backbone(tmp_path, blocks):
    """By what the probe wrote down, and in an old folder by the run that made the file."""
    maker = create_run(tmp_path, "maker", RECIPE.replace("blocks = 4", f"blocks = {blocks}"), {})
    recipe = PROBE_RECIPE.format(file=maker.backbone)
    elsewhere = PROBE_RECIPE.format(file="/nowhere/backbone.keras")
    taps = [f"conv{n}" for n in range(1, blocks + 1)]
    known = {"backbone": {"name": "nin", "taps": taps}}
    for run in (probed(tmp_path, "old", recipe, {}), probed(tmp_path, "new", elsewhere, known)):
        ((_, columns, rows),) = probe_tables(run, run.events())
        assert columns == ["tap", "RotNet", f"paper, NIN with {blocks} blocks"]
        assert [row[-1] for row in rows] == PAPER[blocks]


@pytest.mark.parametrize("facts", [{}, {"backbone": {"name": "alexnet", "taps": ["conv1", "conv2", "conv3", "conv4"]}}])
def test_another_backbone_or_an_unknown_one_has_no_column_of_the_paper(tmp_path, facts):
    run = probed(tmp_path, "a", PROBE_RECIPE.format(file="/nowhere/backbone.keras"), facts)
    assert probe_tables(run, run.events())[0][1] == ["tap", "RotNet"]


def test_raw_pixels_have_a_column_of_their_own(writer, tmp_path):
    write_probes(writer, 60, 0.7)
    run = RunFolder(tmp_path / "a")
    ((_, columns, rows),) = probe_tables(run, run.events())
    assert columns[:4] == ["tap", "RotNet", "random weights", "raw pixels"]
    assert [row[:4] for row in rows] == [["conv1", "60.0", "40.0", "50.0"], ["conv2", "70.0", "50.0", "50.0"]]
    assert len({len(row) for row in rows} | {len(columns)}) == 1
