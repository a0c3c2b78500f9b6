"""From an exported backbone to a classifier, with a few labels of each class, in Keras alone.

    python finetune.py backbone.keras --data cifar10.npz --labels-per-class 100

The data are an .npz file with x_train, y_train, x_test, y_test; without --data, Keras downloads CIFAR-10. The same
network is also trained from random weights, for comparison.
"""

import argparse

import keras
import numpy as np


def few_of_each(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of so many labels of each class, drawn at random."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:count] for c in np.unique(labels)])


def classifier(backbone: keras.Model, tap: str, classes: int) -> keras.Model:
    """The backbone up to a layer and a new head, behind random shifts and flips. It takes raw pixels, 0 to 255."""
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
    """Adam with a rate that falls to nothing along a cosine."""
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    batch = min(64, len(x))
    model.fit(x, y, batch, epochs=max(1, steps * batch // len(x)), verbose=2)


def main() -> None:
    """Fine-tune, train from scratch, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", help="a backbone.keras file, as a run exports it")
    parser.add_argument("--data", help="an .npz file")
    parser.add_argument("--tap", default="conv2", help="the layer below the new head")
    parser.add_argument("--labels-per-class", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000, help="of each of the three trainings")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()

    if chosen.data:
        with np.load(chosen.data, allow_pickle=False) as data:
            x_train, y_train, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    else:
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
    y_train, y_test = y_train.reshape(-1), y_test.reshape(-1)
    rows = few_of_each(y_train, chosen.labels_per_class, chosen.seed)
    x, y, classes = x_train[rows], y_train[rows], len(np.unique(y_train))

    keras.utils.set_random_seed(chosen.seed)
    backbone = keras.models.load_model(chosen.backbone)
    scratch = classifier(keras.models.clone_model(backbone), chosen.tap, classes)
    tuned = classifier(backbone, chosen.tap, classes)

    # First the new head alone, so that its random weights do not spoil the trunk; then everything, gently.
    tuned.get_layer("trunk").trainable = False
    train(tuned, x, y, chosen.steps, 1e-3)
    tuned.get_layer("trunk").trainable = True
    train(tuned, x, y, chosen.steps, 1e-4)
    train(scratch, x, y, 2 * chosen.steps, 1e-3)

    for name, model in (("fine-tuned", tuned), ("from scratch", scratch)):
        print(f"{name}: {100 * model.evaluate(x_test, y_test, 256, verbose=0)[1]:.1f} % on test")


if __name__ == "__main__":
    main()
