"""Random numbers for each image of a batch, the same however the batch is cut into parts."""

from rotnet_keras.engine import tf


def uniform(seed: tf.Tensor, count: tf.Tensor, columns: int, positions: tf.Tensor | None = None) -> tf.Tensor:
    """Numbers in [0, 1) for `count` images: (count, columns) float32.

    Args:
        seed: (2,) integers; the same seed draws the same.
        positions: (count,) the images' positions in the whole batch, if they are a part of one.
    """
    if positions is None:
        return tf.random.stateless_uniform((count, columns), seed)
    # Row after row is drawn, so that fewer rows are the first of more.
    return tf.gather(tf.random.stateless_uniform((tf.reduce_max(positions) + 1, columns), seed), positions)
