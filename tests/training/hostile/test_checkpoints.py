"""A checkpoint of a stranger."""

import numpy as np
from support.pickles import pickled_array

from rotnet_keras.engine import keras
from rotnet_keras.training.checkpoints import Position, restore_checkpoint, save_checkpoint


def test_a_checkpoint_with_a_pickle_runs_no_code(tmp_path):
    folder, marker = tmp_path / "checkpoints", tmp_path / "marker"
    variables = [keras.Variable(np.zeros(2, np.float32))]
    newest = save_checkpoint(folder, variables, Position(step=1), best=False)
    with np.load(newest) as whole:
        progress, value = whole["progress"], whole["0000"]
    for arrays in (
        {"progress": progress, "0000": pickled_array(marker)},
        {"progress": pickled_array(marker), "0000": value},
    ):
        np.savez(newest, **arrays)
        position, damaged = restore_checkpoint(folder, variables)
        assert position == Position() and "step-00000001.npz cannot be used" in damaged[0]
        assert not marker.exists()
