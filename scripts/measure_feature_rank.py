#!/usr/bin/env python3
"""Measure how well the effective rank of features agrees with probes, which need labels:

    python scripts/measure_feature_rank.py runs/NAME...

Each run has `features.knn = true` and a probe of all taps after each epoch. Prints Spearman's rank correlation of the
effective rank, and of the k-NN accuracy, with the probe's accuracy on test: across taps after the last epoch, and over
the epochs for each tap.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from rotnet_keras.runs.feature_quality import tap_curves
from rotnet_keras.runs.folder import RunFolder


def correlations(run: RunFolder) -> None:
    """Print the rows of a run."""
    events = run.events()
    curves = tap_curves(events)
    probes = {(e["step"], e["tap"]): e["top1"] for e in events if e["kind"] == "probe" and e["weights"] == "rotnet"}
    steps = [step for step in curves[0].steps if (step, curves[0].tap) in probes]
    accuracy = np.array([[probes[step, curve.tap] for curve in curves] for step in steps])
    for name in ("ranks", "knn"):
        values = np.array([getattr(curve, name)[-len(steps) :] for curve in curves]).T
        over_epochs = ", ".join(f"{_correlation(values[:, i], accuracy[:, i]):.2f}" for i in range(len(curves)))
        across = _correlation(values[-1], accuracy[-1])
        print(f"| {run.name} | {name} | {across:.2f} | {over_epochs} |")


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(spearmanr(a, b).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    print("| run | measure | across taps at the end | over epochs, by tap |\n| --- | --- | ---: | --- |")
    for path in parser.parse_args().runs:
        correlations(RunFolder(path))


if __name__ == "__main__":
    main()
