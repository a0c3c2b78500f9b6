"""Weights that name a filter of HDF5: no library is loaded for it, from nowhere."""

import sys

import numpy as np
import pytest
from support.command_line import run_python

# HDF5 searches the folders of plug-ins when it is asked for a filter that it does not have.
CODE = """
import rotnet_keras.engine
import h5py
print("available" if h5py.h5z.filter_avail(305) else "fine")
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the loader of other systems does not say what it loads")
def test_no_filter_is_loaded_from_any_folder(tmp_path, monkeypatch):
    """TensorFlow names the folder `disable` there. The library is one of NumPy's, which would be loaded to look at."""
    (tmp_path / "disable").mkdir()
    (tmp_path / "disable" / "libfilter.so").symlink_to(np._core._multiarray_umath.__file__)
    monkeypatch.chdir(tmp_path)
    assert run_python(CODE, LD_DEBUG="files", LD_DEBUG_OUTPUT=str(tmp_path / "loaded")) == "fine\n"
    logs = [log.read_text() for log in tmp_path.glob("loaded.*")]
    assert any("hdf5" in log for log in logs)
    assert not any("libfilter.so" in log for log in logs)
