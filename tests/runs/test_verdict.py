import pytest

from rotnet_keras.runs.verdict import verdict


def steps(*accuracies, loss=1.0):
    return [{"kind": "step", "step": 10 * i, "loss": loss, "accuracy": a} for i, a in enumerate(accuracies, 1)]


def epochs(*validated, train=None):
    """Epochs with these accuracies on validation, and on the training images the same or `train`."""
    return [
        {"kind": "epoch", "accuracy": a if train is None else train, "validation": {"accuracy": a}} for a in validated
    ]


def end(outcome, message=""):
    return [{"kind": "end", "outcome": outcome, "message": message}]


NAN = "Error: the loss became nan in step 40 at learning rate 9"
INFINITE = "Error: weights became infinite by step 40; there is no checkpoint yet."


@pytest.mark.parametrize(
    ("events", "level", "said"),
    [
        ([], "unknown", "No training step yet"),
        ([{"kind": "start"}, {"kind": "epoch", "accuracy": 0.5}], "unknown", "No training step yet"),
        (steps(0.25, 0.26), "unknown", "Near chance so far: training 25.5 % (chance 25 %) at step 20"),
        (steps(*[0.26] * 10), "chance", "Near chance so far"),
        (steps(0.2, *[0.5] * 5), "improving", "Learning: training 50.0 %"),
        (steps(0.25, loss=5.0), "diverged", "The loss, 5.00, is far above that of chance, 1.39"),
        (steps(0.25) + steps(0.25, loss=None), "diverged", "Diverged"),
        (steps(0.25) + end("failed", NAN), "diverged", "Diverged"),
        (steps(0.25) + end("failed", INFINITE), "diverged", "Diverged"),
        (steps(0.9) + epochs(0.29), "chance", "At chance after one epoch: check the learning rate and the images"),
        (steps(0.9) + epochs(0.25, 0.29), "chance", "At chance after 2 epochs"),
        (steps(0.3) + epochs(0.4), "improving", "Learning: validation 40.0 % (chance 25 %) after one epoch."),
        (steps(0.3) + epochs(0.4, 0.47), "improving", "validation 47.0 % (chance 25 %), +7.0 points in one epoch."),
        (steps(0.3) + epochs(0.3, 0.4, 0.42, 0.44, 0.46, 0.48, 0.5), "improving", "+10.0 points in 5 epochs."),
        (steps(0.3) + epochs(0.3, 0.6, *[0.5] * 6), "flat", "No progress in 5 epochs (+0.0 points)"),
        (steps(0.3) + epochs(0.6, 0.5), "flat", "validation 50.0 % (chance 25 %), best 60.0 %."),
        (steps(0.3) + epochs(*[0.95] * 6), "improving", "Near its ceiling: validation 95.0 %"),
        (steps(0.3) + epochs(0.6, 0.7, train=0.86), "overfitting", "training 86.0 %, validation 70.0 %"),
        (steps(0.3) + epochs(0.6, 0.7, train=0.84), "improving", "+10.0 points"),
        (steps(0.3) + epochs(0.7, 0.6) + end("finished"), "improving", "Learned: validation 60.0 %"),
        (steps(0.3) + epochs(0.7, 0.6) + end("stopped"), "flat", "No progress in one epoch (-10.0 points)"),
    ],
)
def test_each_verdict(events, level, said):
    judged = verdict(events)
    assert judged.level == level and said in judged.text


def test_chance_is_one_in_the_number_of_rotations():
    learning = verdict(steps(0.3) + epochs(0.31))
    assert learning.level == "improving" and "chance 25 %" in learning.text
    guessing = verdict(steps(0.5) + epochs(0.54), angles=2)
    assert guessing.level == "chance" and "chance 50 %" in guessing.text


@pytest.mark.parametrize("outcome", [end("failed", NAN), end("finished")])
def test_a_resumed_run_is_judged_by_what_follows(outcome):
    events = [*steps(0.3), *epochs(0.5, 0.4), *outcome, {"kind": "start"}, *steps(0.4)]
    assert verdict(events).level == "flat"
