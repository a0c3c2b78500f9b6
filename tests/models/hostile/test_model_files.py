"""Model files of strangers: what they name, how large they say to be, and what their weights are."""

import ast
import json
import os
import resource
import sys
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import rotnet_tui

import rotnet_keras
from rotnet_keras import host
from rotnet_keras.errors import DataError
from rotnet_keras.runs.exports import model_files
from rotnet_keras.runs.exports.model_files import check_description, check_weights, is_checked
from rotnet_keras.runs.zoo import list_pretrained

# Elsewhere the memory of a process is not limited.
LINUX = sys.platform == "linux"
UNSAFE = "not a Keras model that can be loaded safely"
TENSOR = {"class_name": "__keras_tensor__", "config": {"shape": [None, 4], "dtype": "float32"}}
TENSOR["config"]["keras_history"] = ["pixels", 0, 0]


def layer(name, module="keras.layers", config=None, inbound=(TENSOR,), **more):
    described = {"module": module, "class_name": name, "config": {"name": name, **(config or {})}, "name": name}
    nodes = [{"args": list(inbound), "kwargs": {}}] if inbound else []
    return described | {"registered_name": None, "inbound_nodes": nodes} | more


PIXELS = layer("InputLayer", config={"batch_shape": [None, 4], "dtype": "float32", "name": "pixels"}, inbound=())
PIXELS["name"] = "pixels"


def model(*layers, **more):
    last = [PIXELS, *layers][-1].get("name", "pixels")
    config = {"name": "model", "layers": [PIXELS, *layers]}
    config |= {"input_layers": [["pixels", 0, 0]], "output_layers": [[last, 0, 0]]}
    described = {"module": "keras.src.models.functional", "class_name": "Functional", "config": config}
    return described | {"registered_name": "Functional"} | more


def weights(values=3, **arrays):
    """The content of a weights file."""
    import io

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["layers/dense/vars/0"] = np.ones(values, np.float32)
        for name, options in arrays.items():
            file.create_dataset(name, **options)
    return content.getvalue()


def written(path, config, stored=None, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("model.weights.h5", weights() if stored is None else stored)
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


FUNCTION = {"module": "keras.utils", "class_name": "function", "config": "plot_model", "registered_name": "function"}
DENSE = layer("Dense", config={"units": 2})
CLASS = layer("RetinaNet", "keras_cv.src.models.object_detection.retinanet.retinanet")
NON_MAX = layer("NonMaxSuppression", "keras_cv.src.layers", registered_name="keras_cv>NonMaxSuppression")
HIDDEN = {
    "a Lambda": model(layer("Lambda", config={"function": FUNCTION})),
    "a function as an argument": model(layer("Dense", inbound=(TENSOR, FUNCTION))),
    "a function as an activation": model(layer("Dense", config={"activation": FUNCTION})),
    "a function as a layer": model(layer("plot_model", "keras.utils")),
    "a class as an argument": model(layer("Dense", inbound=(TENSOR, layer("set_floatx", "keras.config")))),
    "another program's model": model(layer("TFSMLayer", config={"filepath": "/etc"})),
    "a list of words in a file": model(layer("StringLookup", config={"vocabulary": "/etc/passwd"})),
    "a class of keras-cv": model(CLASS),
    "a layer of detectors": model(NON_MAX),
    "a class of Python": model(layer("Popen", "subprocess")),
    "a layer by a name that is registered": model(layer("Dense", registered_name="keras_cv>NonMaxSuppression")),
    "a layer of an older format": model({key: value for key, value in DENSE.items() if key != "module"}),
    "a name without a class": model({"registered_name": "Lambda"}),
    "bytecode": model(layer("Dense", inbound=(TENSOR, {"class_name": "__lambda__", "config": {"value": "x"}}))),
    "a type by name": model(layer("Dense", inbound=({"class_name": "__typespec__", "config": []},))),
    "a hidden Lambda": model(layer("TimeDistributed", config={"layer": layer("Lambda")})),
    "a compiled model inside": model(model(compile_config={"optimizer": "sgd"}) | {"name": "inner"}),
    "no model": DENSE,
    "a list": [],
    "a list of lists": "[" * 100_000,
    "tables in tables": '{"class_name":' * 200 + "1" + "}" * 200,
}


@pytest.mark.parametrize("what", HIDDEN)
def test_a_description_names_only_layers_that_compute(tmp_path, what):
    with pytest.raises(DataError, match=UNSAFE):
        check_description(written(tmp_path / "model.keras", HIDDEN[what]))


def test_a_plain_description_is_accepted_and_one_of_a_detector_where_it_is_asked_for(tmp_path):
    check_description(written(tmp_path / "model.keras", model(DENSE, compile_config={"loss": FUNCTION})))
    check_description(written(tmp_path / "detector.keras", model(NON_MAX)), detector=True)
    with pytest.raises(DataError, match=UNSAFE):
        check_description(written(tmp_path / "detector.keras", model(CLASS)), detector=True)


def test_the_archive_has_three_members_of_a_size_that_its_own_justifies(tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    for members in ({"assets__words.txt": "x"}, {"model.weights.npz": "x"}):
        with pytest.raises(DataError, match=r"expected config\.json"):
            check_description(written(path, model(DENSE), **members))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(written(path, model(DENSE)), "a") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(DataError, match="a name twice"):
        check_description(path)
    monkeypatch.setattr(host, "FREE_BYTES", 2**20)
    written(path, model(DENSE), bytes(2**21))
    with pytest.raises(DataError, match=r"unpacks from 0\.0 to 2 MB, more than 50 times .* ROTNET_LIMITS=off"):
        check_description(path)
    monkeypatch.setenv("ROTNET_LIMITS", "off")
    check_description(path)


@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_other_files_are_no_models(tmp_path, name):
    (tmp_path / name).write_bytes(weights())
    with pytest.raises(DataError, match=UNSAFE):
        check_description(tmp_path / name)


def test_layers_and_inputs_are_limited(tmp_path):
    many = [layer("Dense", config={"units": 2, "name": f"d{i}"}) for i in range(5001)]
    with pytest.raises(DataError, match="more than 5,000 layers"):
        check_description(written(tmp_path / "model.keras", model(*many)))
    huge = layer("InputLayer", config={"batch_shape": [None, 100_000, 100_000, 3], "name": "huge"}, inbound=())
    with pytest.raises(DataError, match="an input of shape"):
        check_description(written(tmp_path / "model.keras", model(huge)))


def with_link(file):
    file["layers/other"] = h5py.ExternalLink("/etc/other.h5", "/values")


def with_external_array(file):
    file.create_dataset("values", (4,), "f4", external=[("/etc/hostname", 0, 16)])


def with_filter(file):
    values = file.create_dataset("values", (4,), "f4", chunks=(4,), compression="lzf")
    values[...] = 1


def with_words(file):
    file["values"] = ["a", "b"]


def with_one_array_twice(file):
    file["first"] = np.ones(4)
    file["second"] = file["first"]


def with_empty_space(file):
    """Two gigabytes of zeros, which the file does not have."""
    file.create_dataset("values", (2**19, 2**10), "f4", chunks=(2**10, 2**10))


@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (with_link, "layers/other is a link"),
        (with_external_array, "values lies in another file"),
        (with_filter, "values needs a filter that is not a part of HDF5"),
        (with_words, "values is no array of numbers"),
        (with_one_array_twice, "is there twice"),
        (with_empty_space, "they need more memory than they may take" if LINUX else "unpacks from"),
    ],
)
def test_weights_hold_arrays_and_nothing_else(tmp_path, add, reason):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        add(file)
    path = written(tmp_path / "model.keras", model(DENSE), (tmp_path / "weights.h5").read_bytes())
    with pytest.raises(DataError, match=reason):
        check_weights(path)


def test_weights_are_counted(tmp_path):
    assert check_weights(written(tmp_path / "model.keras", model(DENSE), weights(5))) == 5
    with pytest.raises(DataError, match="its weights cannot be read"):
        check_weights(written(tmp_path / "model.keras", model(DENSE), weights(5)[:-500]))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.abort()", "reading them ended the process, exit code -6"),
        ("import time; time.sleep(60)", "its weights were not read in 1 seconds"),
    ],
)
def test_weights_that_end_or_hang_the_reader_end_in_one_message(tmp_path, monkeypatch, program, reason):
    reader = tmp_path / "reader.py"
    reader.write_text(program)
    monkeypatch.setattr(model_files, "READER", reader)
    monkeypatch.setattr(model_files, "SECONDS", 1)
    with pytest.raises(DataError, match=reason):
        check_weights(written(tmp_path / "model.keras", model(DENSE)))


def test_a_short_description_of_a_huge_model_costs_nothing(tmp_path, monkeypatch):
    """A dense layer of 60,000 by 60,000 weights has 14 GB."""
    from rotnet_keras.models.export import load_backbone

    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    wide, deep = (layer("Dense", config={"units": 60_000, "name": name}) for name in ("wide", "deep"))
    wide["name"], deep["name"] = "wide", "deep"
    deep["inbound_nodes"][0]["args"] = [
        {"class_name": "__keras_tensor__", "config": {"shape": [None, 60_000], "dtype": "float32"}}
    ]
    deep["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = ["wide", 0, 0]
    path = written(tmp_path / "model.keras", model(wide, deep))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(DataError, match=r"the model has 3,600,360,000 weights, and the file holds 3"):
        load_backbone(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    assert time.process_time() - started < 10


def test_a_layer_of_huge_maps_is_refused(tmp_path, monkeypatch):
    from rotnet_keras.engine import keras
    from rotnet_keras.models.export import load_backbone

    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    inputs = keras.Input((8, 8, 3))
    inner = keras.Model(inputs, keras.layers.ZeroPadding2D(20_000)(inputs))
    outer = keras.Input((8, 8, 3))
    keras.Model(outer, keras.layers.Cropping2D(20_000)(inner(outer))).save(tmp_path / "model.keras")
    with pytest.raises(DataError, match=r"a layer gives 4,801,920,192 values for an image, more than 536,870,912"):
        load_backbone(tmp_path / "model.keras")


def test_a_model_of_others_is_checked_once_and_computes_the_same(tmp_path, monkeypatch):
    from rotnet_keras.engine import keras
    from rotnet_keras.models import export

    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    network = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten()]
    )
    network.compile("adam", "mse")
    path = tmp_path / "model.keras"
    network.save(path)
    pixels = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    assert not is_checked(path)
    np.testing.assert_array_equal(export.load_backbone(path)(pixels), network(pixels))
    assert is_checked(path)
    monkeypatch.setattr(export, "check_weights", lambda path: pytest.fail("checked twice"))
    export.load_backbone(path)
    with monkeypatch.context() as patch:
        patch.setattr(model_files, "digest", lambda path: pytest.fail("an unchanged file was read"))
        assert is_checked(path)
    copy = tmp_path / "copy.keras"
    copy.write_bytes(path.read_bytes())
    assert is_checked(copy)
    # The same name, size and time of modification, and another content.
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and not is_checked(path)


def test_what_ships_and_what_is_written_needs_no_check(tmp_path, monkeypatch):
    from rotnet_keras.engine import keras
    from rotnet_keras.models import export

    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    assert all(is_checked(model.backbone) for model in list_pretrained().values())
    export.save_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), tmp_path / "export" / "model.keras")
    assert is_checked(tmp_path / "export" / "model.keras")
    assert [each.name for each in (tmp_path / "export").iterdir()] == ["model.keras"]


LOADING = {"load_model", "load_weights", "model_from_json", "deserialize_keras_object"}


def names_in(node):
    """The names that a part of a program has: of attributes, variables, imports, and words such as getattr takes."""
    if isinstance(node, ast.ImportFrom):
        return {f"{node.module}.{each.name}" for each in node.names} | {each.name for each in node.names}
    return {getattr(node, name) for name in ("id", "attr", "value") if isinstance(getattr(node, name, None), str)}


def loads_and_reads(text):
    """Whether a program names what loads models, and what `allow_pickle` is wherever it reads arrays."""
    loads, reads = False, []
    for node in ast.walk(ast.parse(text)):
        loads |= bool(names_in(node) & LOADING)
        if "numpy.load" in names_in(node):
            reads.append(None)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
            reads.append({each.arg: ast.unparse(each.value) for each in node.keywords}.get("allow_pickle"))
    return loads, reads


@pytest.mark.parametrize(
    "text",
    [
        "keras.models.load_model(path)",
        "from keras.models import load_model\nload_model(path)",
        "from keras.models import load_model as read",
        "getattr(model, 'load_weights')(path)",
        "map(model.load_weights, paths)",
    ],
)
def test_every_way_to_name_what_loads_a_model_is_seen(text):
    assert loads_and_reads(text)[0]


def test_models_are_loaded_in_one_place_and_arrays_never_unpickled():
    places, all_reads = set(), []
    for package in (rotnet_keras, rotnet_tui):
        root = Path(package.__file__).parent
        for file in root.rglob("*.py"):
            loads, reads = loads_and_reads(file.read_text(encoding="utf-8"))
            places |= {file.relative_to(root.parent).as_posix()} if loads else set()
            all_reads += reads
    assert places == {"rotnet_keras/models/export.py"}
    assert set(all_reads) == {"False"}
    assert loads_and_reads("from numpy import load")[1] == loads_and_reads("numpy.load(path)")[1] == [None]
