"""Batch normalisation folded into weights, and layers that learn equally fast."""

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke
from support.tiny import upright_images

from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.models.rescaling import AFFINE, fold_batch_norm, rescale, rescale_file


def trained_looking(name, shape, **options):
    """A backbone whose normalisations have seen something."""
    keras.utils.set_random_seed(0)
    model, rng = backbone(name, shape, **options), np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.weights:
                variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def speeds(model, images):
    """The gradients' sizes relative to the weights', by layer, for a direction of their own."""
    import tensorflow as tf

    kernels = [layer.kernel.value for layer in model.layers if isinstance(layer, AFFINE)]
    with tf.GradientTape() as tape:
        outputs = model(images)
        loss = tf.reduce_sum(outputs * tf.random.stateless_normal(outputs.shape, (7, 7)))
    return np.array(
        [float(tf.norm(g) / tf.norm(k)) for g, k in zip(tape.gradient(loss, kernels), kernels, strict=True)]
    )


@pytest.mark.parametrize(("name", "size"), [("nin", 32), ("compact", 32), ("alexnet", 95)])
def test_a_folded_and_rescaled_backbone_computes_the_same_and_its_layers_learn_equally_fast(name, size):
    model = trained_looking(name, (size, size, 3), width=0.2)
    images = np.random.default_rng(1).random((8, size, size, 3)).astype(np.float32) * 255
    before = np.asarray(model(images))
    chain = fold_batch_norm(model)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in chain.layers)
    assert {layer.name for layer in chain.layers} >= {"conv1", "conv2"}
    assert np.asarray(chain(images)) == pytest.approx(before, rel=1e-3, abs=1e-4 * np.abs(before).max())
    uneven = speeds(chain, images)
    factors = rescale(chain, images, 0)
    assert np.prod(factors) == pytest.approx(1) and max(factors) > 1.05 > 0.95 > min(factors)
    assert np.asarray(chain(images)) == pytest.approx(before, rel=1e-3, abs=1e-4 * np.abs(before).max())
    even = speeds(chain, images)
    assert even.max() / even.min() < max(4, 0.5 * uneven.max() / uneven.min())


def test_a_model_that_is_no_chain_cannot_be_rescaled():
    with pytest.raises(DataError, match="no chain"):
        fold_batch_norm(backbone("resnet50", (32, 32, 3), width=0.1))
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(keras.layers.Activation("tanh", name="bend")(x)))
    with pytest.raises(DataError, match="bend"):
        rescale(fold_batch_norm(model), np.zeros((2, 8, 8, 3)), 0)


def test_a_rescaled_file_computes_the_same(tmp_path):
    model = trained_looking("compact", (16, 16, 3), blocks=2, width=0.25)
    model.save(tmp_path / "backbone.keras")
    (tmp_path / "images").mkdir()
    images = upright_images(6)[0]
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    factors = rescale_file(tmp_path / "backbone.keras", tmp_path / "images", tmp_path / "rescaled.keras")
    assert list(factors) == ["block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2"]
    rescaled = keras.models.load_model(tmp_path / "rescaled.keras")
    assert np.asarray(rescaled(images)) == pytest.approx(np.asarray(model(images)), rel=1e-3, abs=1e-3)
    again = invoke("rescale", "backbone.keras", "--images", "images", "--to", "rescaled.keras", cwd=tmp_path)
    assert again.returncode == 1 and "exists already" in again.stderr
