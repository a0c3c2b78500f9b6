"""How long training waits for its images, and that measuring it changes nothing else."""

import time

import numpy as np
import pytest

from rotnet_keras.engine import keras, tf
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.models.rotnet import RotNet, softmax_loss
from rotnet_keras.training.callbacks import StepEvents

BATCH, BATCHES = 16, 6


def pictures(count=BATCH * BATCHES):
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def delivered(images, seconds=0.0):
    """Batches of images, each after a sleep."""

    def fetch(batch):
        time.sleep(seconds)
        return batch

    batches = tf.data.Dataset.from_tensor_slices(images).batch(BATCH)
    return batches.map(lambda b: tf.ensure_shape(tf.numpy_function(fetch, [b], tf.uint8), (None, 16, 16, 3)))


@pytest.fixture
def model():
    model = RotNet(backbone("compact", (16, 16, 3), blocks=1, width=0.25))
    model.compile(
        keras.optimizers.SGD(0.01),
        loss=softmax_loss(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model


def share_of_waiting(model, batches):
    written = []
    events = StepEvents(lambda **values: written.append(values), first=0, every=BATCHES, batch=BATCH)
    model.fit(batches, verbose=0, callbacks=[events])
    assert [event["step"] for event in written] == [BATCHES]
    return written[0]["data_wait"]


@pytest.mark.long
def test_the_share_of_waiting_distinguishes_a_slow_pipeline_from_a_fast_one(model):
    cached = delivered(pictures()).cache()
    model.fit(cached, verbose=0)
    assert 0 <= share_of_waiting(model, cached) < 0.5
    assert 0.5 < share_of_waiting(model, delivered(pictures(), seconds=0.2)) <= 1


def test_a_smaller_last_batch_and_a_second_fit_use_the_same_graph(model, monkeypatch):
    traced = []
    step = RotNet.train_step
    monkeypatch.setattr(RotNet, "train_step", lambda self, data: traced.append(1) or step(self, data))
    batches = delivered(pictures(BATCH * 2 + 5))
    model.fit(batches, epochs=2, verbose=0)
    once = len(traced)
    model.fit(batches, verbose=0)
    assert len(traced) == once <= 2
    assert int(model.optimizer.iterations) == 9
