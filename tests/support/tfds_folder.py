"""A data set as TensorFlow Datasets prepares it, of images whose brightness is their number."""

import io

import numpy as np
from PIL import Image


def encoded(number, shape=(24, 36), kind="jpeg"):
    """An image whose brightness is its number, up to 23."""
    file = io.BytesIO()
    Image.fromarray(np.full((*shape, 3), 20 + 10 * (number % 24), np.uint8)).save(file, kind)
    return file.getvalue()


def prepare(data_dir, shard_lengths, encode=encoded):
    """Write the data set `pictures` in shards of these lengths.

    Args:
        encode: makes the file of an image of its number, its height and width, and its format.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(num_classes=4)}
    )
    shapes = [(24, 36), (36, 24), (30, 30)]
    folder = data_dir / "pictures" / "1.0.0"
    folder.mkdir(parents=True)
    first = 0
    for shard, length in enumerate(shard_lengths):
        name = f"pictures-train.tfrecord-{shard:05}-of-{len(shard_lengths):05}"
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for n in range(first, first + length):
                kind = "png" if n == 4 else "jpeg"
                image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encode(n, shapes[n % 3], kind)]))
                label = tf.train.Feature(int64_list=tf.train.Int64List(value=[n % 4]))
                example = tf.train.Example(features=tf.train.Features(feature={"image": image, "label": label}))
                writer.write(example.SerializeToString())
        first += length
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=features,
        split_infos=[tfds.core.SplitInfo(name="train", shard_lengths=shard_lengths, num_bytes=0)],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )
    return data_dir
