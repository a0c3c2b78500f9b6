import numpy as np
import pytest

from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.datasets import load
from rotnet_keras.engine import keras
from rotnet_keras.evaluation.features import estimate_batch_norm_statistics, feature_extractor, random_backbone
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.models.heads import build_head


@pytest.mark.parametrize(
    ("head", "shape", "parameters"),
    [
        ("mlp", (8, 8, 192), 2_500_410),
        ("conv", (8, 8, 192), 408_586),
        # Up to 9,216 features are left as they are; AlexNet's taps are pooled to 12, 7, 5, 6 and 6 on a side.
        ("linear", (16, 16, 32), 8_192 * 10 + 10),
        ("linear", (55, 55, 64), 12 * 12 * 64 * 10 + 10),
        ("linear", (27, 27, 192), 7 * 7 * 192 * 10 + 10),
        ("linear", (13, 13, 384), 5 * 5 * 384 * 10 + 10),
        ("linear", (13, 13, 256), 6 * 6 * 256 * 10 + 10),
        # AlexNet's own: 54,542,336 in its two layers, 590,592 in its fifth convolution.
        ("fc", (13, 13, 256), 54_542_336 + 4096 * 10 + 10),
        ("conv_fc", (13, 13, 256), 590_592 + 54_542_336 + 4096 * 10 + 10),
    ],
)
def test_heads_have_the_papers_sizes(head, shape, parameters):
    model = build_head(head, shape, 10, "conv2")
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters
    assert model(np.zeros((2, *shape))).shape == (2, 10)


def test_new_layers_start_as_the_released_code_leaves_them():
    def starts(head, shape):
        model = build_head(head, shape, 10, "conv4")
        norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        biases = [layer.bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and layer.use_bias]
        return [np.asarray(norm.gamma) for norm in norms], [np.asarray(bias) for bias in biases]

    # The scales of dense layers from U(0, 1), those of a map 1, and the bias of a convolution within 1 / sqrt(fan in).
    (of_map, *of_vectors), (bias,) = starts("conv_fc", (13, 13, 256))
    assert (of_map == 1).all() and len(of_vectors) == 2
    for scale in of_vectors:
        assert 0 <= scale.min() < 0.01 and 0.99 < scale.max() <= 1 and abs(scale.mean() - 0.5) < 0.02
    assert (of_vectors[0] != of_vectors[1]).any()
    bound = (9 * 256) ** -0.5
    assert 0.9 * bound < np.abs(bias).max() <= bound and abs(bias.mean()) < 0.2 * bound
    for head in ("mlp", "conv"):
        assert all((scale == 1).all() for scale in starts(head, (8, 8, 12))[0])


def test_a_linear_head_takes_the_largest_of_windows_that_cover_the_map():
    model = build_head("linear", (13, 13, 384), 10, "conv3")
    (pool,) = [layer for layer in model.layers if isinstance(layer, keras.layers.AdaptiveMaxPooling2D)]
    maps = np.random.default_rng(0).random((2, 13, 13, 384), np.float32)
    # Five windows of three or four on thirteen: from the floor of 13 i / 5 to the ceiling of 13 (i + 1) / 5.
    windows = [(0, 3), (2, 6), (5, 8), (7, 11), (10, 13)]
    expected = [[maps[:, a:b, c:d].max(axis=(1, 2)) for c, d in windows] for a, b in windows]
    np.testing.assert_array_equal(pool(maps), np.transpose(expected, (2, 0, 1, 3)))


def test_a_pooled_linear_head_trains():
    model = build_head("linear", (16, 16, 96), 10, "conv1")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    features = np.random.default_rng(0).random((20, 16, 16, 96), np.float32)
    losses = model.fit(features, np.arange(20) % 10, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_a_frozen_trunk_keeps_weights_and_batch_statistics():
    model = backbone("compact", (16, 16, 3), blocks=2, width=0.25)
    trunk = feature_extractor(model, ["conv1", "conv2"])
    head = build_head("linear", (8, 8, 32), 4, "conv2")
    inputs = keras.Input((16, 16, 3))
    whole = keras.Model(inputs, head(trunk(inputs)["conv2"]))
    whole.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [w.copy() for w in model.get_weights()]
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    whole.fit(images, np.arange(8) % 4, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_random_baselines_have_no_batch_statistics_or_estimated_ones(tiny_data):
    dataset = load(Data(name=str(tiny_data)))
    trained = backbone("compact", dataset.image_shape, blocks=2, width=0.25)

    def statistics(model):
        layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        return [(np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)) for layer in layers]

    fresh = random_backbone(trained, seed=1)
    assert all((mean == 0).all() and (variance == 1).all() for mean, variance in statistics(fresh))
    kernels = [np.asarray(model.get_layer("block1_conv1").kernel) for model in (trained, fresh)]
    assert (kernels[0] != kernels[1]).any()
    estimate_batch_norm_statistics(fresh, dataset, Augment(), seed=1)
    assert all((mean != 0).any() and (variance != 1).all() for mean, variance in statistics(fresh))
    features = keras.Model(fresh.input, fresh.get_layer("block1_bn1").output)(dataset.test.images(slice(None)))
    # Normalised with their own statistics, what comes out has about mean 0 and deviation 1.
    assert abs(float(np.mean(features))) < 0.2 and 0.7 < float(np.std(features)) < 1.3
