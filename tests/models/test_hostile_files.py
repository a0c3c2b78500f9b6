"""Files from strangers: loading one runs none of its code."""

import json
import os
import pickle
import zipfile

import pytest
from support.command_line import invoke
from support.fake_runs import fake_run

from rotnet_keras.errors import DataError
from rotnet_keras.models.export import load_backbone
from rotnet_keras.reports.report import write_report


def with_code_in_a_layer(path, marker):
    """A model whose Lambda layer holds Python bytecode."""
    import keras

    inputs = keras.Input((4,))
    # Keras writes the bytecode down, and calls it where it builds the model again.
    code = keras.layers.Lambda(
        lambda x, file: (__import__("pathlib").Path(file).touch(), x)[1], arguments={"file": str(marker)}
    )
    outputs = code(inputs)
    keras.Model(inputs, outputs).save(path)
    marker.unlink(missing_ok=True)


def with_a_call_in_its_config(path, marker):
    """A model whose configuration names a function of Python for a layer."""
    function = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    layer = {"module": "keras.layers", "class_name": "Lambda", "registered_name": None, "name": "lambda"}
    layer |= {"config": {"name": "lambda", "function": function, "arguments": {"command": f"touch {marker}"}}}
    config = {"module": "keras", "class_name": "Sequential", "registered_name": None}
    config |= {"config": {"name": "model", "layers": [layer], "build_input_shape": [None, 1]}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}))
        archive.writestr("model.weights.h5", b"")


class Pickled:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def pickled(path, marker):
    """A pickle by the name of a model."""
    path.write_bytes(pickle.dumps(Pickled(marker)))


@pytest.mark.parametrize("make", [with_code_in_a_layer, with_a_call_in_its_config, pickled])
def test_loading_a_model_runs_none_of_its_code(tmp_path, make):
    path, marker = tmp_path / "backbone.keras", tmp_path / "marker"
    make(path, marker)
    with pytest.raises(DataError, match="not a Keras model that can be loaded safely"):
        load_backbone(path)
    assert not marker.exists()


def test_without_keras_safe_mode_the_code_would_run(tmp_path):
    import keras

    path, marker = tmp_path / "backbone.keras", tmp_path / "marker"
    with_code_in_a_layer(path, marker)
    keras.models.load_model(path, safe_mode=False)
    assert marker.exists()


def test_a_run_from_such_a_model_ends_with_one_message(tmp_path, tiny_data):
    path, marker = tmp_path / "backbone.keras", tmp_path / "marker"
    with_code_in_a_layer(path, marker)
    result = invoke("run", "probe", f"backbone.file={path}", f"data.name={tiny_data}", cwd=tmp_path)
    assert result.returncode == 3 and result.stdout == ""
    (message,) = result.stderr.splitlines()
    assert "not a Keras model that can be loaded safely" in message
    assert not marker.exists() and not (tmp_path / "runs").exists()


def test_a_pickled_checkpoint_of_pytorch_is_not_opened(tmp_path):
    path, marker = tmp_path / "model.pth", tmp_path / "marker"
    pickled(path, marker)
    result = invoke("convert", path, "--backbone", "nin", "--to", tmp_path / "backbone.keras")
    assert result.returncode == 3 and "not a PyTorch checkpoint that can be read safely" in result.stderr
    assert not marker.exists()


def test_texts_of_a_foreign_run_are_escaped_in_its_report(tmp_path):
    said = "<script>alert(1)</script>\x1b[2J"
    run = fake_run(tmp_path, "run", f"title={json.dumps(said)}", epochs=1, outcome="failed", message=said)
    with run.events_file.open("a") as file:
        for kind in ("warning", "end"):
            file.write(json.dumps({"kind": kind, "time": 1, "message": said, "outcome": said, "exit_code": 1}) + "\n")
    run.facts_file.write_text(json.dumps({**run.facts(), "device": said, "classes": [said] * 10}))
    write_report(run)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert" in page and "<script>alert" not in page and "\x1b" not in page
    assert "\x1b" not in (run.path / "report.md").read_text(encoding="utf-8")
