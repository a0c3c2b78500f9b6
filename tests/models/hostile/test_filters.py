"""Weights that name a filter of HDF5: no library is loaded for it, from nowhere."""

import sys

import numpy as np
import pytest
from support.command_line import run_python

from rotnet_keras.errors import DataError
from rotnet_keras.inference import publishing
from rotnet_keras.runs.exports.model_files import READER
from rotnet_keras.runs.zoo import list_pretrained

# HDF5 searches the folders of plug-ins when it is asked for a filter that it does not have.
ASK = """
import h5py
print("available" if h5py.h5z.filter_avail(305) else "fine")
"""
WAYS = {
    "a training": "import rotnet_keras.engine" + ASK,
    "the reader of weights": f"import runpy\nrunpy.run_path({str(READER)!r})" + ASK,
}


@pytest.fixture
def no_filter(tmp_path, monkeypatch):
    """Folders where HDF5 looks for filters, that of TensorFlow and one that the user has set; returns the check.

    The library is one of NumPy's, which would be loaded to look at.
    """
    for name in ("disable", "plugins"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "libfilter.so").symlink_to(np._core._multiarray_umath.__file__)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HDF5_PLUGIN_PRELOAD", raising=False)
    monkeypatch.setenv("LD_DEBUG", "files")
    monkeypatch.setenv("LD_DEBUG_OUTPUT", str(tmp_path / "loaded"))

    def check():
        logs = [log.read_text() for log in tmp_path.glob("loaded.*")]
        assert any("hdf5" in log for log in logs)
        assert not any("libfilter.so" in log for log in logs)

    return check


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the loader of other systems does not say what it loads")
@pytest.mark.parametrize("folder", [None, "plugins"])
@pytest.mark.parametrize("way", WAYS)
def test_no_filter_is_loaded_from_any_folder(no_filter, way, folder, tmp_path):
    """TensorFlow names the folder `disable`; the user may name another one."""
    given = {"HDF5_PLUGIN_PATH": str(tmp_path / folder)} if folder else {}
    assert run_python(WAYS[way], **given) == "fine\n"
    no_filter()


@pytest.mark.skipif(sys.platform != "linux", reason="the loader of other systems does not say what it loads")
def test_no_filter_is_loaded_where_a_published_model_is_checked(no_filter, tmp_path, monkeypatch):
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(tmp_path / "plugins"))
    monkeypatch.setattr(publishing, "CHECK", ASK)
    with pytest.raises(DataError, match="cannot be loaded as Keras loads it from the hub"):
        publishing.publish(list_pretrained()["compact4_cifar10"].backbone, tmp_path / "model", "mit")
    no_filter()
