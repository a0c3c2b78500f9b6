import pytest

from rotnet_keras.config.sections import Schedule
from rotnet_keras.training.schedules import learning_rate


def rate(schedule, step, steps_per_epoch=10, total=100):
    return learning_rate(schedule, 0.1, step, steps_per_epoch, total)


def test_piecewise_drops_at_the_boundaries_of_the_released_code():
    schedule = Schedule(name="piecewise", boundaries=[60, 120, 160], factor=0.2)
    values = [learning_rate(schedule, 0.1, epoch * 391, 391, 200 * 391) for epoch in (0, 59, 60, 120, 160, 199)]
    assert values == pytest.approx([0.1, 0.1, 0.02, 0.004, 0.0008, 0.0008])


def test_boundaries_in_steps():
    schedule = Schedule(name="piecewise", unit="steps", boundaries=[3], factor=0.5)
    assert [rate(schedule, step) for step in (2, 3)] == pytest.approx([0.1, 0.05])


def test_one_cycle_rises_to_the_peak_and_falls_to_nearly_nothing():
    values = [rate(Schedule(name="one_cycle", peak=0.25), step) for step in range(100)]
    top = values.index(max(values))
    assert 24 <= top <= 25 and values[top] == pytest.approx(0.1, rel=0.05)
    assert values[:top] == sorted(values[:top]) and values[top:] == sorted(values[top:], reverse=True)
    assert 0 < values[-1] < 0.002 and 0 < values[0] < 0.005


def test_cosine_after_a_warmup():
    schedule = Schedule(name="cosine", warmup=1)
    values = [rate(schedule, step) for step in range(100)]
    assert values[:10] == sorted(values[:10]) and values[0] > 0
    assert values[10] == pytest.approx(0.1) and values[55] == pytest.approx(0.05) and values[99] < 0.0001


def test_constant_stays():
    assert {rate(Schedule(), step) for step in range(100)} == {0.1}
