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


@pytest.mark.skipif(sys.platform != "linux", reason="the loader of other systems does not say what it loads")
def test_no_filter_is_loaded_from_any_folder(tmp_path, monkeypatch):
    """The library is one of NumPy's, which would be loaded and then turned down as it is no filter."""
    for folder in ("disable", "given"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "libfilter.so").symlink_to(np._core._multiarray_umath.__file__)
    monkeypatch.chdir(tmp_path)
    for given in ({}, {"HDF5_PLUGIN_PATH": str(tmp_path / "given")}):
        assert run_python(CODE, LD_DEBUG="files", LD_DEBUG_OUTPUT=str(tmp_path / "loaded"), **given) == "fine\n"
    logs = [log.read_text() for log in tmp_path.glob("loaded.*")]
    assert sum("hdf5" in log for log in logs) == 2
    assert not any("libfilter.so" in log for log in logs)
