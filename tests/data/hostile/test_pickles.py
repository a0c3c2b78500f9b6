"""Arrays of a stranger that only a pickle can hold, wherever arrays are read."""

import numpy as np
import pytest
from support.command_line import invoke
from support.pickles import pickled_array

from rotnet_keras.data.stores import read_index
from rotnet_keras.errors import DataError


@pytest.mark.parametrize(
    "words",
    [("init", "FILE"), ("plot", "FILE", "--to", "a.png"), ("run", "quickstart", "data.name=FILE")],
    ids=["init", "plot", "run"],
)
def test_a_command_runs_no_code(tmp_path, words):
    file, marker = tmp_path / "a.npz", tmp_path / "marker"
    pixels = {"x_train": np.zeros((4, 8, 8, 3), np.uint8)}
    for other, name in (({}, "x_train"), ({}, "files"), (pixels, "y_train")):
        np.savez(file, **other, **{name: pickled_array(marker)})
        result = invoke(*(word.replace("FILE", str(file)) for word in words), cwd=tmp_path)
        assert result.returncode in (2, 3) and len(result.stderr.splitlines()) <= 2, result.stderr
        assert not marker.exists()


def test_a_file_of_the_cache_runs_no_code(tmp_path):
    np.savez(tmp_path / "index.npz", labels=pickled_array(tmp_path / "marker"))
    with pytest.raises(DataError, match="is damaged"):
        read_index(tmp_path / "index.npz")
    assert not (tmp_path / "marker").exists()
