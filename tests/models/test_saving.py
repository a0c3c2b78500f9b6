"""A `.keras` file is whole, or as it was before."""

import pytest

from rotnet_keras.engine import keras
from rotnet_keras.models import export


@pytest.mark.parametrize("before", [None, b"whole"], ids=["new", "there"])
def test_a_model_that_cannot_be_written_whole_leaves_what_was_there(tmp_path, monkeypatch, before):
    def half(source, target):
        target.write(source.read(100))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_portable", half)
    path = tmp_path / "export" / "backbone.keras"
    path.parent.mkdir()
    if before:
        path.write_bytes(before)
    with pytest.raises(OSError, match="No space left"):
        export.save_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), path)
    left = [(file.name, file.read_bytes()) for file in path.parent.iterdir()]
    assert left == ([(path.name, before)] if before else [])
