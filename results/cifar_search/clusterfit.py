#!/usr/bin/env python3
"""Label CIFAR-10's training images by clusters of a backbone's features, as ClusterFit does (Yan et al., CVPR 2020).

    rotnet-keras run results/cifar_search/screened_airbench.toml train.steps=1208 probe=[] --name first
    python results/cifar_search/clusterfit.py runs/first/export/backbone.keras --data-dir DIR --to clusters.npz
    rotnet-keras run results/cifar_search/clusterfit.toml data.name=clusters.npz --name second
    rotnet-keras run results/cifar_search/screened_probe.toml backbone.run=second

The first and the last take `data.data_dir=DIR` besides, unless TFDS_DATA_DIR names the folder. The first 90 % of the
training images become `x_train` with their clusters as labels, the others `x_val`. No label of CIFAR-10 and no test
image is read. Features are the mean of the tap's map and of that of the mirror image, whitened by their principal
components and scaled to length 1.
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from rotnet_keras.engine import keras
from rotnet_keras.models.export import load_backbone


def features(backbone: Path, tap: str, images: np.ndarray) -> np.ndarray:
    """Return the features (N, C) of images."""
    model = load_backbone(backbone)
    pooled = keras.layers.GlobalAveragePooling2D()(model.get_layer(tap).output)
    reader = keras.Model(model.input, pooled)
    both = [reader.predict(each, batch_size=512, verbose=0) for each in (images, images[:, :, ::-1])]
    return (both[0] + both[1]) / 2


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--tap", default="conv2")
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    source = tfds.as_numpy(tfds.load("cifar10", split="train", data_dir=options.data_dir, download=False))
    images = np.stack([record["image"] for record in source])
    count = len(images) * 9 // 10
    found = features(options.backbone, options.tap, images)
    whitened = PCA(whiten=True, random_state=0).fit(found[:count]).transform(found)
    whitened /= np.linalg.norm(whitened, axis=1, keepdims=True)
    means = MiniBatchKMeans(options.clusters, batch_size=4096, n_init=3, random_state=0).fit(whitened[:count])
    labels = means.predict(whitened)
    sizes = np.bincount(labels[:count], minlength=options.clusters)
    print(f"Images in a cluster: {sizes.min()} to {sizes.max()}, median {np.median(sizes):.0f}")
    arrays = {"x_train": images[:count], "y_train": labels[:count], "x_val": images[count:], "y_val": labels[count:]}
    np.savez(options.to, **arrays)


if __name__ == "__main__":
    main()
