"""Checkpoints of the authors' PyTorch code: what PyTorch wrote, and what it computed, lies in torch_files."""

import gzip
import pickle
import shutil
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.command_line import invoke, run_python
from support.torch_files import write_torch_file

from rotnet_keras.errors import DataError
from rotnet_keras.models.torch_import.checkpoint import read_checkpoint
from rotnet_keras.models.torch_import.files import read_state_dict

FILES = Path(__file__).parent / "torch_files"


def images(size, channels):
    """The images of make.py, which needs PyTorch to be imported."""
    rows, columns, kinds = np.mgrid[:size, :size, :channels]
    return np.stack([(rows * (7 + n) + columns * columns * (n + 1) + 60 * kinds) % 256 for n in range(3)])


def state_of(name):
    return dict(read_state_dict(FILES / name))


def convert(checkpoint, folder, *options, backbone="nin"):
    return invoke("convert", checkpoint, "--backbone", backbone, "--to", folder / "backbone.keras", *options)


@pytest.mark.parametrize(
    ("name", "size", "channels", "options"),
    [
        ("nin4_legacy", 32, 3, ()),
        ("nin4_pooled_zip", 32, 3, ("--avg-on-conv3",)),
        ("nin3_parameters_zip", 32, 3, ()),
        ("alexnet_legacy", 224, 3, ()),
        ("grey_nin3_zip", 32, 1, ("--mean", "110", "--std", "50")),
    ],
)
def test_every_block_computes_what_pytorch_does(tmp_path, name, size, channels, options):
    from rotnet_keras.engine import keras

    result = convert(FILES / name, tmp_path, *options, backbone=name.split("_")[0].rstrip("34").replace("grey", "nin"))
    assert result.returncode == 0, result.stderr
    assert str(tmp_path / "rotnet.keras") in result.stdout
    expected = dict(np.load(FILES / f"{name}.npz"))
    pixels = images(size, channels)
    backbone = keras.models.load_model(tmp_path / "backbone.keras")
    taps = [key for key in expected if key != "logits"]
    found = keras.Model(backbone.input, {tap: backbone.get_layer(tap).output for tap in taps})(pixels)
    for tap, value in found.items():
        value = np.asarray(value)
        value = value[:, ::3, ::3] if value.ndim == 4 else value
        np.testing.assert_allclose(value, expected[tap], rtol=1e-4, atol=1e-4, err_msg=tap)
    exponentials = np.exp(expected["logits"])
    probabilities = np.asarray(keras.models.load_model(tmp_path / "rotnet.keras")(pixels))
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64"])
def test_arrays_have_the_values_and_types_of_the_tensors(tmp_path, legacy, dtype):
    state = {"a": np.arange(24).reshape(2, 3, 4).astype(dtype), "b": np.array(7, dtype)}
    write_torch_file(tmp_path / "file", state, legacy)
    found = read_state_dict(tmp_path / "file")
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == dtype


def test_reading_loads_neither_torch_nor_tensorflow():
    code = """
import sys
from pathlib import Path
from rotnet_keras.models.torch_import.checkpoint import read_checkpoint
print(read_checkpoint(Path(sys.argv[1]), "nin").blocks, {"torch", "tensorflow", "keras"} & set(sys.modules))
"""
    assert run_python(code, FILES / "nin4_legacy").split() == ["4", "set()"]


def compressed(path):
    path.write_bytes(gzip.compress((FILES / "nin4_legacy").read_bytes()))


def in_a_tar(path):
    with tarfile.open(path, "w") as archive:
        archive.add(FILES / "nin4_legacy", "model_net_epoch200")


def in_a_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(FILES / "nin4_legacy", "model_net_epoch200")


def cut_off(path):
    path.write_bytes((FILES / "nin4_legacy").read_bytes()[:-100])


def cut_off_zip(path):
    path.write_bytes((FILES / "nin4_pooled_zip").read_bytes()[:-100])


def without_a_tensor(path):
    state = state_of("nin4_legacy")
    del state["_feature_blocks.1.Block2_ConvB1.layers.Conv.weight"]
    write_torch_file(path, state)


def with_nan(path):
    state = state_of("nin4_legacy")
    name = "_feature_blocks.1.Block2_ConvB1.layers.BatchNorm.running_var"
    write_torch_file(path, {**state, name: np.full_like(state[name], np.nan)})


def with_another_layer(path):
    write_torch_file(path, {**state_of("nin4_legacy"), "_feature_blocks.9.Extra.weight": np.zeros(3, np.float32)})


def of_another_shape(path):
    state = state_of("nin4_legacy")
    name = "_feature_blocks.1.Block2_ConvB1.layers.Conv.weight"
    write_torch_file(path, {**state, name: state[name][:, :, :3]})


def with_too_large_a_shape(path):
    write_torch_file(path, state_of("nin4_legacy"), size_of_first=(2**20, 2**20))


def beyond_its_numbers(path):
    write_torch_file(path, state_of("nin4_legacy"), offset_of_first=1)


class Called:
    def __reduce__(self):
        return print, ("code of the file ran",)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: path.touch(), "the file is empty"),
        (lambda path: path.write_text("no checkpoint"), "it is damaged or of another kind"),
        (lambda path: path.write_text("<!DOCTYPE html>"), "a web page, not a checkpoint"),
        (compressed, "a gzip archive; unpack it first (tar -xf checkpoint)"),
        (in_a_tar, "a tar archive; unpack it first (tar -xf checkpoint)"),
        (in_a_zip, "a zip archive without data.pkl; if it holds the checkpoint, unpack it first"),
        (cut_off, "it is cut off; download or copy it again"),
        (cut_off_zip, "a zip archive that is damaged or cut off"),
        (without_a_tensor, "it has no _feature_blocks.1.Block2_ConvB1.layers.Conv.weight"),
        (with_nan, "Block2_ConvB1.layers.BatchNorm.running_var holds NaN or infinity"),
        (with_another_layer, "which has no _feature_blocks.9.Extra.weight"),
        (with_too_large_a_shape, "has the shape (1048576, 1048576), and the file holds"),
        (beyond_its_numbers, "has the shape (8, 3, 5, 5), and the file holds 600 numbers"),
        (partial(shutil.copy, FILES / "alexnet_legacy"), "--backbone alexnet"),
        (partial(shutil.copy, FILES / "whole_module_zip"), "torch.save(network.state_dict()"),
        (partial(shutil.copy, FILES / "grey_nin3_zip"), "give the training's own numbers with --mean"),
        (lambda path: path.write_bytes(pickle.dumps(Called(), 2)), "it asks for __builtin__.print"),
        (lambda path: path.write_bytes(pickle.dumps(Called(), 4)), "it uses the operation FRAME"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_converted_is_refused_with_the_reason(tmp_path, make, complaint, capfd):
    make(tmp_path / "checkpoint")
    before = set(sys.modules)
    result = convert(tmp_path / "checkpoint", tmp_path)
    assert result.returncode == 3 and complaint in result.stderr, result.stderr
    assert "code of the file ran" not in result.stdout + capfd.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint"}
    assert not {"tensorflow", "keras", "torch"} & (set(sys.modules) - before)


def test_a_tensor_of_another_shape_is_refused_and_nothing_is_written(tmp_path):
    of_another_shape(tmp_path / "checkpoint")
    result = convert(tmp_path / "checkpoint", tmp_path)
    assert (
        result.returncode == 3
        and "block2_conv1/kernel has the shape (3, 5, 4, 8), expected (5, 5, 4, 8)" in result.stderr
    )
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint"}


def test_damaged_bytes_end_in_one_error(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("nin4_legacy", "nin4_pooled_zip"):
        whole = (FILES / name).read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            # Most of the file is numbers, of which any value is valid.
            for position in rng.integers(0, 2000, 3):
                damaged[position] = rng.integers(256)
            (tmp_path / "checkpoint").write_bytes(damaged)
            try:
                read_checkpoint(tmp_path / "checkpoint", "nin")
            except DataError as error:
                assert str(error).startswith(str(tmp_path / "checkpoint"))


def test_a_head_that_is_not_of_four_rotations_is_left_out_with_a_word(tmp_path):
    state = state_of("nin3_parameters_zip")
    ten = {
        f"_feature_blocks.3.Classifier.{name}": np.zeros(shape, np.float32)
        for name, shape in (("weight", (10, 8)), ("bias", (10,)))
    }
    write_torch_file(tmp_path / "supervised", {**state, **ten})
    result = convert(tmp_path / "supervised", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Its classifier has 10 classes, not 4 rotations: rotnet.keras is not written." in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"supervised", "backbone.keras"}


def test_what_the_weights_of_a_nin_do_not_show_is_said(tmp_path):
    said = "trained without use_avg_on_conv3"
    (tmp_path / "a").mkdir()
    assert said in convert(FILES / "nin4_pooled_zip", tmp_path / "a").stdout
    (tmp_path / "b").mkdir()
    assert said not in convert(FILES / "nin4_pooled_zip", tmp_path / "b", "--avg-on-conv3").stdout
    (tmp_path / "c").mkdir()
    result = convert(FILES / "nin3_parameters_zip", tmp_path / "c", "--avg-on-conv3")
    assert result.returncode == 2 and "only a nin of four or more blocks" in result.stderr


@pytest.mark.parametrize("numbers", ["", "a,b,c", "1,2,300", "nan,1,1"])
def test_numbers_of_channels_are_checked(tmp_path, numbers):
    result = convert(FILES / "nin4_legacy", tmp_path, "--std", numbers)
    assert result.returncode == 2 and "--std: expected numbers up to 255 with commas" in result.stderr
    result = convert(FILES / "nin4_legacy", tmp_path, "--mean", "1,2")
    assert result.returncode == 3 and "--mean: expected 3 numbers, one a channel, got 2" in result.stderr
