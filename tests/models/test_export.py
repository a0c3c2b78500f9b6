"""Exports, used where this package cannot be imported."""

import numpy as np
import pytest
from support.command_line import invoke, run_cli, run_python
from support.whole_runs import events_of

EXPORT_CODE = """
import sys
sys.modules["rotnet_keras"] = None
import keras, numpy as np
folder = sys.argv[1]
pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
backbone = keras.models.load_model(folder + "/backbone.keras")
features = keras.Model(backbone.input, backbone.get_layer("conv1").output).predict(pixels, verbose=0)
assert features.shape == (8, 8, 8, 16) and features.dtype == "float32", features.shape
assert np.array_equal(backbone.predict(pixels, verbose=0), backbone.predict(pixels.astype("float32"), verbose=0))
for name in ("rotnet", "classifier"):
    probabilities = keras.models.load_model(f"{folder}/{name}.keras").predict(pixels, verbose=0)
    assert probabilities.shape == (8, 4) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)])
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
before = backbone.trainable_variables[0].numpy().copy()
model.fit(pixels, np.arange(8) % 4, verbose=0)
assert not np.array_equal(before, backbone.trainable_variables[0].numpy())
print("fine")
"""


@pytest.mark.long
def test_exports_work_where_this_package_cannot_be_imported(finished):
    _, run = finished
    assert run_python(EXPORT_CODE, run.export).strip().endswith("fine")


def test_the_exported_rotnet_knows_its_angles(finished, tiny_data):
    from rotnet_keras.engine import keras

    _, run = finished
    with np.load(tiny_data) as arrays:
        images = arrays["x_test"]
    turned = np.concatenate([np.rot90(images, k, axes=(1, 2)) for k in range(4)])
    model = keras.models.load_model(run.export / "rotnet.keras")
    right = model.predict(turned, verbose=0).argmax(axis=1) == np.repeat(np.arange(4), len(images))
    assert right.mean() == pytest.approx(events_of(run, "test")[0]["accuracy"], abs=0.01)


@pytest.mark.parametrize("to", ["savedmodel", "onnx", "litert"])
def test_a_failed_conversion_leaves_no_file(tmp_path, monkeypatch, to):
    from rotnet_keras.engine import keras
    from rotnet_keras.models.export import convert

    source, target = tmp_path / "model.keras", tmp_path / "target"
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(source)

    def ends_half_way(model, path, **options):
        path.write_bytes(b"half")
        assert not target.exists()
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.Model, "export", ends_half_way)
    with pytest.raises(OSError, match="No space left"):
        convert(source, to, target)
    assert list(tmp_path.iterdir()) == [source]


def by_savedmodel(target, pixels):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(target))
    return loaded.serve(pixels)


def by_onnx(target, pixels):
    import onnxruntime

    session = onnxruntime.InferenceSession(target)
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]


def by_litert(target, pixels):
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(target))
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(inputs["index"], pixels.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs["index"], pixels)
    interpreter.invoke()
    return interpreter.get_tensor(outputs["index"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Interpreter is deprecated")
@pytest.mark.parametrize(("to", "by"), [("savedmodel", by_savedmodel), ("onnx", by_onnx), ("litert", by_litert)])
def test_an_export_to_another_format_computes_the_same(finished, tmp_path, to, by):
    from rotnet_keras.engine import keras

    _, run = finished
    target = tmp_path / "exported"
    command = ("export", run.path, "--to", to, "--model", "rotnet", "--output", target)
    result = run_cli(*command)
    assert result.returncode == 0, result.stderr
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.float32)
    expected = keras.models.load_model(run.export / "rotnet.keras").predict(pixels, verbose=0)
    np.testing.assert_allclose(by(target, pixels), expected, atol=1e-5)
    again = invoke(*command)
    assert again.returncode == 1 and "exists already" in again.stderr
