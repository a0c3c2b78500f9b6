"""Measures `rotnet-keras select`: the accuracy of a probe on few labels, chosen by each rule and at random.

Features are files that `rotnet-keras embed` wrote; the class of an image is the name of its folder. One half of the
test images chooses the rule, the other half is what is reported:

    rotnet-keras embed compact4_cifar10 cifar10/train --to train.npz
    rotnet-keras embed compact4_cifar10 cifar10/test --to test.npz
    python scripts/measure_selection.py train.npz test.npz
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from rotnet_keras.inference.embeddings import load_features
from rotnet_keras.inference.selection import k_centre, normalised, plus_plus, typical

DRAWS = 5
# Share of the pool that each draw chooses from, so that rules without chance differ between draws too.
POOL = 0.8


def labelled(file):
    """The features of a file and the classes of its images."""
    features = load_features(Path(file))
    return features.values, np.array([Path(name).parent.name for name in features.files])


def fitted(values, labels):
    """A logistic probe."""
    if len(set(labels)) < 2:
        return None
    return LogisticRegression(max_iter=500).fit(values, labels)


def accuracy(model, values, labels):
    """Accuracy in percent; that of a constant where there was one class."""
    return 0.0 if model is None else 100 * float((model.predict(values) == labels).mean())


def main():
    """Print a table of accuracies, mean and standard deviation over the draws."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    values, labels = labelled(sys.argv[1])
    test, truth = labelled(sys.argv[2])
    half = np.random.default_rng(0).permutation(len(truth)) % 2 == 0
    first = {
        "random": lambda v, n, taken, seed, doubt: list(np.random.default_rng(seed).permutation(len(v))[:n]),
        "k-means++": lambda v, n, taken, seed, doubt: plus_plus(v, n, taken, seed),
        "k-centre": lambda v, n, taken, seed, doubt: k_centre(v, n, taken),
        "typical": lambda v, n, taken, seed, doubt: typical(v, n, taken, seed),
    }
    then = {
        "random": lambda v, n, taken, seed, doubt: [
            row for row in np.random.default_rng(seed + 50).permutation(len(v)) if row not in set(taken)
        ][:n],
        "k-means++": lambda v, n, taken, seed, doubt: plus_plus(v, n, taken, seed),
        "k-means++ x doubt": lambda v, n, taken, seed, doubt: plus_plus(v, n, taken, seed, doubt),
        "k-centre x doubt": lambda v, n, taken, seed, doubt: k_centre(v, n, taken, doubt),
        "doubt alone": lambda v, n, taken, seed, doubt: [
            row for row in np.argsort(-doubt, kind="stable") if row not in set(taken)
        ][:n],
        "typical": lambda v, n, taken, seed, doubt: typical(v, n, taken, seed),
        "typical, doubtful clusters first": lambda v, n, taken, seed, doubt: typical(v, n, taken, seed, doubt),
    }
    table = {}
    for draw in range(DRAWS):
        pool = np.sort(np.random.default_rng(100 + draw).permutation(len(values))[: int(POOL * len(values))])
        scaler = StandardScaler().fit(values[pool])
        near, far = normalised(values[pool]), scaler.transform(values[pool])
        own, held = labels[pool], scaler.transform(test)

        def score(chosen, far=far, own=own, held=held):
            model = fitted(far[chosen], own[chosen])
            return [accuracy(model, held[part], truth[part]) for part in (half, ~half)]

        for name, rule in first.items():
            for count in (20, 100):
                table.setdefault((f"{count} at once", name), []).append(score(rule(near, count, [], draw, None)))
        # After 20 labels a classifier predicts, and 80 more are chosen.
        start = typical(near, 20, [], draw)
        model = fitted(far[start], own[start])
        doubt = 1 - model.predict_proba(far).max(axis=1)
        for name, rule in then.items():
            chosen = [*start, *rule(near, 80, start, draw, doubt)]
            table.setdefault(("20 typical, then 80", name), []).append(score(chosen))
    print(f"{sys.argv[1]}: {len(labels):,} images, {len(set(labels))} classes; tested on {len(truth):,}")
    print("\n| labels | rule | choosing half, % | reported half, % |\n| --- | --- | ---: | ---: |")
    for (when, name), found in table.items():
        mean, std = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
        cells = " | ".join(f"{m:.1f} ± {s:.1f}" for m, s in zip(mean, std, strict=True))
        print(f"| {when} | {name} | {cells} |")


if __name__ == "__main__":
    main()
