"""Random numbers for each image of a batch, which do not depend on how the batch is split."""

from rotnet_keras.engine import tf


def uniform(seed: tf.Tensor, count: tf.Tensor, columns: int, positions: tf.Tensor | None = None) -> tf.Tensor:
    """Uniform random numbers in [0, 1), (count, columns) float32: one row for each image.

    Args:
        seed: (2,) integers; the same seed gives the same numbers.
        count: the number of images.
        columns: the numbers per image.
        positions: (count,) int32, the positions of the images in the whole batch, where they are only a part of it.
    """
    if positions is None:
        return tf.random.stateless_uniform((count, columns), seed)
    # Numbers are drawn row by row, so that a draw of fewer rows equals the first rows of a larger draw.
    return tf.gather(tf.random.stateless_uniform((tf.reduce_max(positions) + 1, columns), seed), positions)
