"""From an exported backbone to a classifier, with a few labels of each class, in Keras alone.

    python finetune.py backbone.keras --data cifar10.npz --labels-per-class 20 100 --seeds 3

The data are an .npz file with x_train, y_train, x_test, y_test; without --data, Keras downloads CIFAR-10. The same
network is also trained from random weights, for comparison. Each seed draws other labels and other initial weights. The
last lines are the accuracy on test: the mean over the seeds and, with several, the standard deviation.
"""

import argparse

import keras
import numpy as np


def few_of_each(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the positions of `count` labels of each class, drawn at random."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:count] for c in np.unique(labels)])


def classifier(backbone: keras.Model, tap: str, classes: int) -> keras.Model:
    """Build a classifier of raw pixels, 0 to 255: random shifts and flips, the backbone up to `tap`, a new head."""
    trunk = keras.Model(backbone.input, backbone.get_layer(tap).output, name="trunk")
    return keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="reflect"),
            trunk,
            keras.layers.Conv2D(192, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes),
        ]
    )


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, steps: int, rate: float) -> None:
    """Train with Adam for whole epochs of at least `steps` steps; the rate falls to zero along a cosine."""
    batch = min(64, len(x))
    epochs = -(-steps * batch // len(x))
    steps = epochs * -(-len(x) // batch)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch, epochs, verbose=0)


def fine_tune(model: keras.Model, x: np.ndarray, y: np.ndarray, steps: int) -> None:
    """Train the new head alone, so that its random weights do not spoil the trunk, then everything at a low rate."""
    model.get_layer("trunk").trainable = False
    train(model, x, y, steps, 1e-3)
    model.get_layer("trunk").trainable = True
    train(model, x, y, steps, 1e-4)


def load_data(file: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Load training images, (N, S, S, C) from 0 to 255, their labels, (N,), and the same for the test."""
    if file is None:
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
    else:
        with np.load(file, allow_pickle=False) as data:
            x_train, y_train, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    return x_train, y_train.reshape(-1), x_test, y_test.reshape(-1)


def main() -> None:
    """Fine-tune a backbone, train the same network from scratch, and compare both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", help="a backbone.keras file, as a run exports it")
    parser.add_argument("--data", help="an .npz file")
    parser.add_argument("--tap", default="conv2", help="the layer below the new head")
    parser.add_argument("--labels-per-class", type=int, nargs="+", default=[100])
    parser.add_argument("--steps", type=int, default=1000, help="of each phase: head, all layers; from scratch 2x")
    parser.add_argument("--seeds", type=int, default=1, help="number of repetitions")
    chosen = parser.parse_args()

    x_train, y_train, x_test, y_test = load_data(chosen.data)
    lines = ["labels of each class  fine-tuned, %  from scratch, %"]
    for count in chosen.labels_per_class:
        found = []
        for seed in range(chosen.seeds):
            rows = few_of_each(y_train, count, seed)
            keras.utils.clear_session()
            keras.utils.set_random_seed(seed)
            backbone, classes = keras.models.load_model(chosen.backbone), len(np.unique(y_train))
            scratch = classifier(keras.models.clone_model(backbone), chosen.tap, classes)
            tuned = classifier(backbone, chosen.tap, classes)
            fine_tune(tuned, x_train[rows], y_train[rows], chosen.steps)
            train(scratch, x_train[rows], y_train[rows], 2 * chosen.steps, 1e-3)
            found.append([100 * model.evaluate(x_test, y_test, 256, verbose=0)[1] for model in (tuned, scratch)])
            print(f"{count} of each, seed {seed}: {found[-1][0]:.1f} and {found[-1][1]:.1f} %", flush=True)
        row = [f"{mean:.1f}" for mean in np.mean(found, axis=0)]
        if len(found) > 1:
            row = [f"{mean} ± {spread:.1f}" for mean, spread in zip(row, np.std(found, axis=0, ddof=1), strict=True)]
        lines.append(f"{count:<22}{row[0]:<15}{row[1]}")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
