"""Exports and pretrained models, in the oldest version of Keras that they are promised for."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.command_line import run_python

from rotnet_keras.runs.zoo import list_pretrained

# `make build/keras-3.8/.installed` puts it there, and `make test-long` does so first.
OLD_KERAS = Path(__file__).parents[2] / "build" / "keras-3.8"
SHIPPED = [file for model in list_pretrained().values() for file in sorted(model.export.glob("*.keras"))]
CODE = """
import sys
sys.modules["rotnet_keras"] = None
import keras, numpy as np
for file in sys.argv[1:]:
    model = keras.models.load_model(file)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *model.input.shape[1:])).astype("float32")
    print(keras.__version__, *model.predict(pixels, verbose=0)[:, ..., 0].ravel()[:8])
"""


def keys_in(value):
    if isinstance(value, dict):
        return set(value).union(*map(keys_in, value.values()))
    return set().union(*map(keys_in, value)) if isinstance(value, list) else set()


def description(file):
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("config.json"))


def test_exports_and_pretrained_models_have_no_newer_keys(finished):
    """Keras 3.13 and 3.14 added these; earlier versions refuse a file with them."""
    _, run = finished
    for file in (*SHIPPED, *run.export.glob("*.keras")):
        assert not {key for key in keys_in(description(file)) if key.startswith("renorm") or key.endswith("put_axes")}


def test_newer_keys_that_say_something_are_kept(tmp_path):
    from rotnet_keras.engine import keras
    from rotnet_keras.models.export import load_backbone, save_model

    inputs = keras.Input((4,))
    outputs = keras.layers.BatchNormalization(renorm=True, renorm_momentum=0.5)(inputs)
    save_model(keras.Model(inputs, outputs), tmp_path / "export" / "model.keras")
    layer = load_backbone(tmp_path / "export" / "model.keras").layers[-1]
    assert layer.renorm and layer.renorm_momentum == 0.5


def test_a_failed_export_leaves_the_one_before(tmp_path, monkeypatch):
    from rotnet_keras.engine import keras
    from rotnet_keras.models.export import load_backbone, save_model

    path = tmp_path / "export" / "model.keras"
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    save_model(model, path)
    before = path.read_bytes()

    def ends_half_way(model, target, **options):
        Path(target).write_bytes(b"half")
        assert path.read_bytes() == before
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.Model, "save", ends_half_way)
    with pytest.raises(OSError, match="No space left"):
        save_model(model, path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    assert load_backbone(path).count_params() == 10


@pytest.mark.long
@pytest.mark.skipif(not OLD_KERAS.is_dir(), reason="make build/keras-3.8/.installed fetches it")
def test_exports_and_pretrained_models_load_in_an_old_keras(finished):
    _, run = finished
    files = [*SHIPPED, *sorted(run.export.glob("*.keras"))]
    old, new = (run_python(CODE, *files, PYTHONPATH=path).splitlines() for path in (str(OLD_KERAS), ""))
    assert len(old) == len(new) == len(files)
    assert {line.split()[0] for line in old} == {"3.8.0"} and not {line.split()[0] for line in new} & {"3.8.0"}
    for ours, theirs in zip(old, new, strict=True):
        np.testing.assert_allclose([*map(float, ours.split()[1:])], [*map(float, theirs.split()[1:])], rtol=1e-5)
