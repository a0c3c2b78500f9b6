"""From an exported backbone to a classifier, with a few labels of each class, in Keras alone.

    python finetune.py backbone.keras --data cifar10.npz --labels-per-class 20 100 --seeds 3

The data are an .npz file with x_train, y_train, x_test, y_test; without --data, Keras downloads CIFAR-10. The same
network is also trained from random weights, for comparison. Each seed draws other labels and other first weights; what
is printed in the end is accuracy on test, the mean over the seeds and, of several, the standard deviation.
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
    """Adam with a rate that falls to nothing along a cosine, for so many steps or a few more: whole epochs."""
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
    """First the new head alone, so that its random weights do not spoil the trunk; then everything, gently."""
    model.get_layer("trunk").trainable = False
    train(model, x, y, steps, 1e-3)
    model.get_layer("trunk").trainable = True
    train(model, x, y, steps, 1e-4)


def load_data(file: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, (N, S, S, C) from 0 to 255, and their labels, (N,); test images and theirs."""
    if file is None:
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
    else:
        with np.load(file, allow_pickle=False) as data:
            x_train, y_train, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    return x_train, y_train.reshape(-1), x_test, y_test.reshape(-1)


def main() -> None:
    """Fine-tune, train from scratch, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", help="a backbone.keras file, as a run exports it")
    parser.add_argument("--data", help="an .npz file")
    parser.add_argument("--tap", default="conv2", help="the layer below the new head")
    parser.add_argument("--labels-per-class", type=int, nargs="+", default=[100])
    parser.add_argument("--steps", type=int, default=1000, help="of each half: a new head, then all; 2 x from scratch")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
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
        told = [f"{mean:.1f}" for mean in np.mean(found, axis=0)]
        if len(found) > 1:
            told = [f"{mean} ± {spread:.1f}" for mean, spread in zip(told, np.std(found, axis=0, ddof=1), strict=True)]
        lines.append(f"{count:<22}{told[0]:<15}{told[1]}")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
