#!/usr/bin/env python3
"""Show what `upright --write` does to albums of the photos of some folders, by the value of `--min-confidence`.

    python scripts/choose_upright_confidence.py airbench4_photos FOLDER ...

The default of `--min-confidence` is chosen with these photos. They are upright, the model was not trained on them, and
they are none of those that `upright` is measured on. The photos are dealt into albums at random, 20 times over.
Of each album 0, 5 or 33 % are rotated. The last line names the lowest value that spoils at most 0.3 % of the upright
photos at each of these shares.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from rotnet_keras.errors import RotnetError
from rotnet_keras.inference.album_metrics import draw_quarters
from rotnet_keras.inference.corrections import find_corrections
from rotnet_keras.inference.loading import list_image_files
from rotnet_keras.inference.orientation import Predictions, load_orientation_model, predict
from rotnet_keras.runs import zoo
from rotnet_keras.text import percent

VALUES = (0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
SHARES = (0.0, 0.05, 0.33)
ALBUM = 250
TIMES = 20
MOST_SPOILED = 0.003


def outcome(predictions: Predictions, temperature: float, value: float, rotated: float) -> tuple[float, float]:
    """Return the shares of upright photos that are spoiled, and of rotated photos that are set upright, both 0 to 1."""
    spoiled, righted = [], []
    for seed in range(TIMES):
        order = np.random.default_rng(seed).permutation(len(predictions.files))
        for start in range(0, len(order) - ALBUM + 1, ALBUM):
            album = order[start : start + ALBUM]
            quarters = np.array(draw_quarters(ALBUM, seed, rotated))
            # To rotate an image by right angles only exchanges its four copies.
            copies = np.stack([np.roll(predictions.log_probabilities[i], -q, axis=0) for i, q in zip(album, quarters)])
            files = [predictions.files[i] for i in album]
            corrections = find_corrections(Predictions(files, copies, []), temperature, value).images
            applied = np.array([each.clockwise // 90 if each.needed else 0 for each in corrections])
            spoiled += list(applied[quarters == 0] != 0)
            righted += list(applied[quarters != 0] == quarters[quarters != 0])
    return float(np.mean(spoiled)), float(np.mean(righted)) if righted else float("nan")


def report_progress(what: str, done: int, total: int) -> None:
    print(f"\r{what}: {done:,}/{total:,}", end="", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the name of a pretrained model")
    parser.add_argument("folders", type=Path, nargs="+", help="upright photos, at least 250 together")
    chosen = parser.parse_args()
    try:
        network = zoo.find_pretrained(chosen.model)
        temperature = zoo.load_card(network)["temperature"]
        predictions = predict(load_orientation_model(network), list_image_files(chosen.folders), report_progress)
    except RotnetError as error:
        sys.exit(str(error))
    print(f"\n{len(predictions.files):,} photos, temperature {temperature:.3g}")
    print("min-confidence | " + " | ".join(f"spoiled and set upright at {percent(share, 0)}" for share in SHARES))
    allowed = []
    for value in VALUES:
        outcomes = [outcome(predictions, temperature, value, share) for share in SHARES]
        print(f"{value} | " + " | ".join(f"{percent(bad, 2)} {percent(good)}" for bad, good in outcomes))
        if max(bad for bad, _ in outcomes) <= MOST_SPOILED:
            allowed.append(value)
    print(f"lowest with at most {percent(MOST_SPOILED, None)} spoiled: {min(allowed, default=None)}")


if __name__ == "__main__":
    main()
