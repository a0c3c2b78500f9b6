"""When step events read the loss from the device, and what they do about one that is not finite."""

from types import SimpleNamespace

import pytest

from rotnet_keras.errors import DivergedError
from rotnet_keras.training import callbacks
from rotnet_keras.training.callbacks import StepEvents

STEPS = 30


class Scalar:
    """A loss on a device; reading it is counted."""

    def __init__(self, value, read):
        self.value, self.read = value, read

    def __float__(self):
        self.read.append(self.value)
        return self.value


def train(losses, seconds_per_step, monkeypatch):
    """The events of steps with these losses, and the losses that were read."""
    written, read, now = [], [], [0.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now[0])
    events = StepEvents(lambda **values: written.append(values), first=0, every=10, batch=4)
    events.set_model(
        SimpleNamespace(input_wait=0.0, optimizer=SimpleNamespace(learning_rate=0.5), reset_metrics=lambda: None)
    )
    events.on_train_begin()
    for batch, loss in enumerate(losses):
        now[0] += seconds_per_step
        events.on_train_batch_end(batch, {"loss": Scalar(loss, read), "accuracy": 0.5})
    return written, read


def test_the_loss_is_read_for_events_and_twice_a_second(monkeypatch):
    losses = [float(i) for i in range(STEPS)]
    written, read = train(losses, 0.001, monkeypatch)
    # The first step too, so that the progress line says something soon.
    assert read == [0.0, 9.0, 19.0, 29.0]
    assert [(event["step"], event["loss"], event["steps"]) for event in written] == [
        (10, 9, 10),
        (20, 19, 10),
        (30, 29, 10),
    ]
    assert written[1]["images_per_s"] == pytest.approx(4 / 0.001, rel=1e-3)
    slow, read = train(losses, 1.0, monkeypatch)
    assert read == losses and len(slow) == 3


@pytest.mark.parametrize(("seconds", "step"), [(0.001, 20), (1.0, 13)])
def test_a_loss_that_is_not_finite_ends_the_training_at_the_next_reading(seconds, step, monkeypatch):
    with pytest.raises(DivergedError, match=f"the loss became nan by step {step} at learning rate 0.5"):
        train([1.0] * 12 + [float("nan")] * 18, seconds, monkeypatch)
