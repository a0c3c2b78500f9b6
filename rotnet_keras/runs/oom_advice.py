"""What to try when a training needs more memory than there is."""

from rotnet_keras.runs.folder import RunFolder

# What TensorFlow, its devices and Python call it.
SIGNS = ("ResourceExhausted", "OOM", "MemoryError", "out of memory", "Unable to allocate", "bad_alloc")


def ran_out(message: str) -> bool:
    """Whether an error says that memory ran out."""
    return any(sign in message for sign in SIGNS)


def advice(run: RunFolder) -> str:
    """A smaller batch, or the same in parts; empty where there is nothing smaller."""
    batch, inputs = run.settings().get("train", {}).get("batch", 1), run.facts().get("inputs_per_step")
    if batch < 2:
        return ""
    return (
        f"train.batch={batch} makes {inputs or 'several times as many'} inputs a step. Try a new run with "
        f"train.batch={batch // 2}, or with train.accumulate=2, which computes the same batch in two parts."
    )
