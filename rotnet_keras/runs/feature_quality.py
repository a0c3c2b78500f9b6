"""Are the features good, without labels? What `features` events say: which tap, and whether more epochs help."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rotnet_keras.runs.events import Event
from rotnet_keras.runs.exports.backbone_file import best_probe, choose_tap
from rotnet_keras.text import percent

QUESTION = "Which features are good, without labels?"
# How far effective ranks agree with probes, in a few words, and as results/feature_rank.md has it.
CAUTION = "Effective ranks compare epochs of one layer, not layers."
TRUST = (
    f"{CAUTION} In small runs on CIFAR-10 their rank correlation with linear probes was 0.8 to 1.0 over epochs in the "
    "first three layers, -0.1 to 0.5 in later ones, and -0.6 and -0.8 across layers."
)
# Ranks of a tap are compared over this share of the epochs, at the end; a change by less than this factor is none.
RECENT, CHANGE = 1 / 3, 1.03
# Fewer epochs say nothing about a trend.
FEWEST_EPOCHS = 3


@dataclass(frozen=True)
class TapCurve:
    """What was measured of a tap, in the order of the steps.

    Attributes:
        tap: its name.
        channels: its channels.
        steps: when it was measured.
        ranks: effective ranks, 1 to `channels`; NaN where a feature was no finite number.
        dead: shares of channels that were constant over all images, 0 to 1.
        knn: k-NN accuracies, 0 to 1; empty if they were not measured.
    """

    tap: str
    channels: int
    steps: list[int]
    ranks: list[float]
    dead: list[float]
    knn: list[float]


def tap_curves(events: Sequence[Event]) -> list[TapCurve]:
    """Return the curve of each tap; a step that was measured again counts as measured last."""
    by_step = {event["step"]: event for event in events if event["kind"] == "features"}
    curves: dict[str, TapCurve] = {}
    for step in sorted(by_step):
        for found in by_step[step]["taps"]:
            curve = curves.setdefault(found["tap"], TapCurve(found["tap"], found["channels"], [], [], [], []))
            curve.steps.append(step)
            curve.ranks.append(_number(found["rank"]))
            curve.dead.append(found["dead"])
            if "knn" in found:
                curve.knn.append(_number(found["knn"]))
    return list(curves.values())


def advice(events: Sequence[Event]) -> str:
    """Say in one sentence which tap to read, and whether more epochs still help; empty if nothing was measured.

    Effective ranks do not order taps reliably. The tap is that of the best probe, see `choose_tap`, or k-NN accuracy
    where there is one, else the middle one.
    """
    curves = {curve.tap: curve for curve in tap_curves(events)}
    if not curves:
        return ""
    accuracies = {tap: curve.knn[-1] for tap, curve in curves.items() if curve.knn and math.isfinite(curve.knn[-1])}
    probe = best_probe(events)
    if probe and probe["tap"] in curves:
        tap, why = choose_tap(list(curves), events), "whose probe is best on validation"
        if tap != probe["tap"]:
            why = (
                f"the middle layer, whose probe is within one standard error of the best ({probe['tap']}) on validation"
            )
    elif accuracies:
        tap, why = max(accuracies, key=lambda tap: accuracies[tap]), "whose k-NN accuracy on validation is highest"
    else:
        tap, why = choose_tap(list(curves), []), "the middle layer, as no labels say better"
    return f"Read {tap}, {why}{_trend(curves[tap])}."


def _trend(curve: TapCurve) -> str:
    """Say how the effective rank changed of late."""
    count = len(curve.ranks)
    if count < FEWEST_EPOCHS:
        return ""
    before, now = curve.ranks[count - 1 - max(1, round(RECENT * count))], curve.ranks[-1]
    if not (before > 0 and math.isfinite(now)):
        return ""
    change = now / before
    if change >= CHANGE:
        return f"; its effective rank still rises, {percent(change - 1, 0)} in the last third: more epochs may help"
    if change <= 1 / CHANGE:
        return f"; its effective rank falls, {percent(1 - change, 0)} in the last third: more epochs may not help"
    return "; its effective rank has stopped rising: more epochs may not help"


def rows(curves: Sequence[TapCurve]) -> tuple[list[str], list[list[str]]]:
    """Return the heading and the rows of a table of what was measured last."""
    knn = any(curve.knn for curve in curves)
    heading = ["tap", "channels", "effective rank", "dead channels", *(["k-NN accuracy"] if knn else [])]
    table = []
    for curve in curves:
        rank = f"{curve.ranks[-1]:.1f}" if math.isfinite(curve.ranks[-1]) else "not finite"
        accuracy = [percent(curve.knn[-1]) if curve.knn else ""] if knn else []
        table.append([curve.tap, str(curve.channels), rank, percent(curve.dead[-1]), *accuracy])
    return heading, table


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
