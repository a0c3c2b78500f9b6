import numpy as np
import pytest

from rotnet_keras.engine import keras
from rotnet_keras.training.checkpoints import Position, restore_checkpoint, save_checkpoint


@pytest.fixture
def variables():
    return [keras.Variable(np.zeros((2, 3), np.float32)), keras.Variable(0, dtype="int64")]


def save(folder, variables, step, best=False):
    variables[0].assign(np.full((2, 3), step))
    return save_checkpoint(folder, variables, Position(step=step, sums={"loss": 0.5}), best)


def test_the_last_two_and_the_best_are_kept(tmp_path, variables):
    for step in (1, 2, 3, 4):
        save(tmp_path, variables, step, best=step == 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.npz", "step-00000003.npz", "step-00000004.npz"]
    with np.load(tmp_path / "best.npz") as best:
        assert best["0000"][0, 0] == 2


def test_the_newest_checkpoint_is_restored(tmp_path, variables):
    save(tmp_path, variables, 1)
    save(tmp_path, variables, 2)
    variables[0].assign(np.zeros((2, 3)))
    position, damaged = restore_checkpoint(tmp_path, variables)
    assert position == Position(step=2, sums={"loss": 0.5}) and not damaged
    assert (np.asarray(variables[0]) == 2).all()


@pytest.mark.parametrize("harm", ["truncate", "flip", "empty", "pickle", "other model"])
def test_a_damaged_checkpoint_is_skipped_with_a_message(tmp_path, variables, harm):
    save(tmp_path, variables, 1)
    newest = save(tmp_path, variables, 2)
    content = bytearray(newest.read_bytes())
    if harm == "truncate":
        newest.write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        place = content.index(np.full(6, 2, np.float32).tobytes())
        content[place] ^= 1
        newest.write_bytes(content)
    elif harm == "empty":
        newest.write_bytes(b"")
    elif harm == "pickle":
        np.savez(newest, progress=np.array([{}], dtype=object))
    else:
        save_checkpoint(tmp_path, variables[:1], Position(step=2), False)
    position, damaged = restore_checkpoint(tmp_path, variables)
    assert position.step == 1
    assert len(damaged) == 1 and "step-00000002.npz" in damaged[0]
    assert (np.asarray(variables[0]) == 1).all()


@pytest.mark.long
def test_no_flipped_bit_restores_wrong_values(tmp_path, variables):
    save(tmp_path, variables, 1)
    newest = save(tmp_path, variables, 2)
    whole = newest.read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        newest.write_bytes(content)
        position, damaged = restore_checkpoint(tmp_path, variables)
        assert position == Position(step=1 if damaged else 2, sums={"loss": 0.5}), bit
        assert (np.asarray(variables[0]) == position.step).all(), bit


def test_without_a_checkpoint_training_starts_at_step_0(tmp_path, variables):
    assert restore_checkpoint(tmp_path / "none", variables) == (Position(), [])
