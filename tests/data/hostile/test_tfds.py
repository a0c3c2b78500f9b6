"""A prepared data set of a stranger: its metadata name no code, no files elsewhere, and no counts without records."""

import json
import os
import sys

import pytest
from support.command_line import invoke

from rotnet_keras.config.sections import Data
from rotnet_keras.data.sources import TfdsSource, find_source
from rotnet_keras.errors import DataError

FEATURES = "tensorflow_datasets.core.features"
IMAGE = {
    "pythonClassName": f"{FEATURES}.image_feature.Image",
    "image": {"dtype": "uint8", "shape": {"dimensions": ["16", "16", "3"]}},
}


def features(**extra):
    """The content of a `features.json` with an image and these features."""
    return {
        "pythonClassName": f"{FEATURES}.features_dict.FeaturesDict",
        "featuresDict": {"features": {"image": IMAGE, **extra}},
    }


def info(**extra):
    """The content of a `dataset_info.json` with one split, and these keys."""
    split = {
        "name": "train",
        "shardLengths": ["4"],
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    return {"name": "pictures", "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split], **extra}


def write(data_dir, name=None, content=None, folder="pictures/1.0.0"):
    """Write a data set that is as it should be but for one file."""
    files = {"features.json": features(), "dataset_info.json": info()} | ({name: content} if name else {})
    for file, value in files.items():
        path = data_dir / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """The name of a class in a module whose import leaves a file; and that file."""
    sprung = tmp_path / "sprung"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "stranger_features.py").write_text(f"open({str(sprung)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield "stranger_features.Feature", sprung
    sys.modules.pop("stranger_features", None)


def test_a_data_set_as_it_should_be_is_found(tmp_path):
    write(tmp_path)
    for name in ("pictures", "pictures:1.0.0", "pictures:1.*.*"):
        assert find_source(Data(name=name, data_dir=str(tmp_path))) == TfdsSource(name, tmp_path, False)


def test_what_is_understood_of_a_prepared_data_set_is_told_without_tensorflow(tmp_path):
    write(tmp_path)
    write(
        tmp_path,
        "dataset_info.json",
        info(splits=[{"name": "train", "shardLengths": ["3", "1500"]}]),
        "pictures/1.10.0",
    )
    (tmp_path / "pictures" / "1.10.0" / "label.labels.txt").write_text("cat\ndog\n")
    arguments = ("run", "cifar_nin", "probe=[]", f"data.data_dir={tmp_path}", "--dry-run")
    result = invoke(*arguments, "data.name=pictures", "data.splits.test=train[:10]", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [line.split("  ", 1) for line in result.stdout.splitlines()]
    found = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    assert found["data set"] == f"pictures/1.10.0 of TensorFlow Datasets, in {tmp_path}"
    assert (found["splits"], found["used"]) == ("train 1,503 images", "test = train[:10]")
    assert (found["images"], found["classes"]) == ("16 x 16 pixels, 3 channels", "2: cat, dog")
    older = invoke(*arguments, "data.name=pictures:1.0.*", cwd=tmp_path)
    assert "pictures/1.0.0 of TensorFlow Datasets" in older.stdout and "train 4 images" in older.stdout
    missing = invoke(*arguments, "data.name=pictures2", "data.download=true", cwd=tmp_path)
    assert f"pictures2 of TensorFlow Datasets, to be downloaded to {tmp_path}" in missing.stdout


@pytest.mark.parametrize(
    ("file", "wrap"),
    [
        ("features.json", lambda name: features(label={"pythonClassName": name})),
        ("features.json", lambda name: features(label={"python_class_name": name})),
        ("features.json", lambda name: {"type": name, "content": {}}),
        ("features.json", lambda name: features(a={"jsonFeature": {"json": json.dumps({"x": {"type": name}})}})),
        ("dataset_info.json", lambda name: info(features={"pythonClassName": name})),
    ],
    ids=["features.json", "snake case", "old form", "JSON in JSON", "dataset_info.json"],
)
@pytest.mark.parametrize("where", ["elsewhere", "tensorflow_datasets.scripts.cli.main.Feature"])
def test_metadata_name_no_code(tmp_path, trap, file, wrap, where):
    name, sprung = trap
    name = name if where == "elsewhere" else where
    write(tmp_path, file, wrap(name))
    with pytest.raises(DataError) as error:
        find_source(Data(name="pictures", data_dir=str(tmp_path)))
    assert f"1.0.0/{file}: " in str(error.value) and f"got {name!r}" in str(error.value)
    assert not sprung.exists()


def test_no_code_runs_where_a_data_set_is_loaded(tmp_path, trap):
    """What TensorFlow Datasets would do: the library itself imports the module."""
    from rotnet_keras.data.tfds import open_builder

    name, sprung = trap
    write(tmp_path, "features.json", features(label={"pythonClassName": name}))
    with pytest.raises(DataError, match="expected a class of tensorflow_datasets"):
        open_builder(TfdsSource("pictures", tmp_path, False))
    assert not sprung.exists()


def test_the_command_says_it_in_one_message(tmp_path, trap, runs_dir):
    name, _ = trap
    write(tmp_path, "features.json", features(label={"pythonClassName": name}))
    result = invoke("run", "cifar_nin", "data.name=pictures", f"data.data_dir={tmp_path}")
    assert result.returncode == 3 and "features.json: pythonClassName: expected a class of" in result.stderr
    assert not runs_dir.exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dataset_info.json", info(name="../../other"), "name: expected a name"),
        ("dataset_info.json", info(configName=".."), "configName: expected a name"),
        ("dataset_info.json", info(splits=[{"name": "../train"}]), "splits.name: expected a name"),
        (
            "dataset_info.json",
            info(splits=[{"name": "train", "filepathTemplate": "../{SPLIT}"}]),
            "filepathTemplate: expected a name of files in this folder",
        ),
        (
            "dataset_info.json",
            info(splits=[{"name": "train", "filepathTemplate": "{SPLIT.__class__}"}]),
            "filepathTemplate: expected a name of files in this folder",
        ),
        ("features.json", features(**{"../../secret": IMAGE}), "would be read from another folder"),
        ("../.config/metadata.json", {"default_config_name": "../.."}, "default_config_name: expected a name"),
    ],
)
def test_metadata_name_no_files_elsewhere(tmp_path, file, content, message):
    write(tmp_path, file, content)
    with pytest.raises(DataError, match=message):
        find_source(Data(name="pictures", data_dir=str(tmp_path)))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "features.json",
            features(label={"pythonClassName": f"{FEATURES}.X", "classLabel": {"numClasses": "9" * 12}}),
            "numClasses: expected at most 1,000,000",
        ),
        ("features.json", features(a={"image": {"shape": {"dimensions": ["99999999"]}}}), "dimensions: expected at"),
        (
            "dataset_info.json",
            info(splits=[{"name": "train", "shardLengths": ["-4"]}]),
            "shardLengths: expected counts",
        ),
        ("features.json", '{"a":' * 2000 + "1" + "}" * 2000, "too deeply nested"),
        ("features.json", "[1]", "expected an object"),
        ("features.json", "{", "Expecting"),
    ],
    ids=["classes", "pixels", "negative", "deep", "list", "broken"],
)
def test_metadata_ask_for_no_more_than_is_there(tmp_path, file, content, message):
    write(tmp_path, file, content)
    with pytest.raises(DataError, match=message):
        find_source(Data(name="pictures", data_dir=str(tmp_path)))


def test_a_pipe_is_not_waited_for(tmp_path):
    write(tmp_path)
    os.mkfifo(tmp_path / "pictures" / "1.0.0" / "label.labels.txt")
    with pytest.raises(DataError, match=r"label\.labels\.txt: expected a file, got a pipe"):
        find_source(Data(name="pictures", data_dir=str(tmp_path)))


@pytest.mark.parametrize(
    "name", ["huggingface:pictures", "pictures/..", "pictures/data_dir=elsewhere", "a/../pictures"]
)
def test_a_name_leads_to_no_other_folder_and_to_no_hub(tmp_path, name):
    for folder in (name.split(":")[0], "pictures"):
        write(tmp_path, folder=f"{folder}/1.0.0")
    with pytest.raises(DataError, match=r"data\.name: (expected the name of a data set|.* has not prepared it)"):
        find_source(Data(name=name, data_dir=str(tmp_path), download=name.startswith("pictures")))


def test_another_spelling_of_the_name_is_checked_too(tmp_path):
    """The library writes `Pictures` as `pictures` and reads that folder."""
    write(tmp_path, folder="Pictures/1.0.0")
    write(tmp_path, "features.json", {"type": "stranger.Feature"})
    with pytest.raises(DataError, match=r"pictures/1\.0\.0/features\.json: type"):
        find_source(Data(name="Pictures", data_dir=str(tmp_path)))


@pytest.mark.parametrize("lengths", [[], ["0"]])
def test_a_split_without_records_is_reported(tmp_path, lengths):
    from rotnet_keras.data.tfds import open_builder, tfds_splits

    write(tmp_path, "dataset_info.json", info(splits=[{"name": "train", "shardLengths": lengths}]))
    _, opened = open_builder(TfdsSource("pictures", tmp_path, False))
    with pytest.raises(DataError, match=r"train of pictures/1\.0\.0 has no records"):
        tfds_splits(opened, Data(name="pictures").splits)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dataset_info.json", info(splits=[]), "has no split train; set one of those there: nothing"),
        ("dataset_info.json", info(name=""), "have no names: Could not format"),
        (
            "dataset_info.json",
            info(splits=[{"name": "train", "shardLengths": ["4"], "filepathTemplate": "a" * 5000}]),
            r"has no file \S{500}; prepare the data set again",
        ),
        (
            "features.json",
            features(image=IMAGE | {"image": {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "3", "-1"]}}}),
            "expected height, width and channels",
        ),
    ],
    ids=["no split", "no name", "long name", "four dimensions"],
)
def test_metadata_that_lack_something_end_in_one_message(tmp_path, file, content, message):
    from rotnet_keras.data.datasets import load

    write(tmp_path, file, content)
    (tmp_path / "pictures" / "1.0.0" / "pictures-train.tfrecord-00000-of-00001").write_bytes(b"\0" * 400)
    with pytest.raises(DataError, match=message):
        load(Data(name="pictures", data_dir=str(tmp_path), size=16))


def test_a_split_has_no_more_records_than_its_file_can_hold(tmp_path):
    from rotnet_keras.data.tfds import open_builder, tfds_splits

    write(tmp_path)
    for content, message in ((b"\0" * 40, "cannot hold the 4 records"), (None, "has no file")):
        shard = tmp_path / "pictures" / "1.0.0" / "pictures-train.tfrecord-00000-of-00001"
        shard.unlink(missing_ok=True) if content is None else shard.write_bytes(content)
        _, opened = open_builder(TfdsSource("pictures", tmp_path, False))
        with pytest.raises(DataError, match=message):
            tfds_splits(opened, Data(name="pictures").splits)


@pytest.mark.parametrize("harm", [lambda content: content[:-5], lambda content: content[:200] + b"x" + content[201:]])
def test_a_damaged_record_of_a_set_that_is_decoded_at_once_ends_in_one_message(tmp_path, harm):
    from support.tfds_folder import prepare

    from rotnet_keras.data.datasets import load

    (shard,) = prepare(tmp_path, [4]).rglob("*.tfrecord-*")
    shard.write_bytes(harm(shard.read_bytes()))
    spec = {"name": "pictures", "data_dir": str(tmp_path), "size": 16, "validation": 0, "cache": "memory"}
    with pytest.raises(DataError, match=r"pictures/1\.0\.0, train: a record cannot be read: .*set data\.cache=none"):
        load(Data(**spec))
