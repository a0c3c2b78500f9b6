"""Files of arrays of strangers that unpack to far more than their size."""

import tracemalloc
import zipfile

import numpy as np
import pytest

from rotnet_keras import host
from rotnet_keras.config.sections import Data
from rotnet_keras.data.audit import audit_images
from rotnet_keras.data.sizes import count_training_images
from rotnet_keras.errors import DataError


def test_a_checkpoint_of_other_sizes_is_not_unpacked(tmp_path):
    """The array of 64 MB takes 64 kB in the file."""
    from rotnet_keras.engine import keras
    from rotnet_keras.training.checkpoints import restore_checkpoint

    with zipfile.ZipFile(tmp_path / "step-00000001.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape in (("0000", (2**26,)), ("progress", (2,))):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
                for _ in range(max(1, shape[0] // 2**20)):
                    file.write(bytes(min(shape[0], 2**20)))
    variables = [keras.Variable(np.ones(4, np.float32))]
    tracemalloc.start()
    _, damaged = restore_checkpoint(tmp_path, variables)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24
    assert damaged == [
        "checkpoint step-00000001.npz cannot be used (its arrays have other shapes than the model's variables); "
        "trying the previous one"
    ]


@pytest.mark.parametrize("read", [audit_images, lambda name: count_training_images(Data(name=name))])
def test_an_archive_does_not_unpack_to_far_more_than_its_size_justifies(tmp_path, monkeypatch, read):
    monkeypatch.setattr(host, "FREE_BYTES", 2**20)
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x_train=np.zeros((2**13, 16, 16), np.uint8))
    with pytest.raises(DataError, match=r"unpacks from 0\.0 to 2 MB, more than 50 times .* set .* ROTNET_LIMITS=off"):
        read(str(path))
    monkeypatch.setenv("ROTNET_LIMITS", "off")
    assert count_training_images(Data(name=str(path))) > 7000
