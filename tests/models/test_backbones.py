import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from support.command_line import invoke

from rotnet_keras.config.architectures import APPLICATIONS, ARCHITECTURES
from rotnet_keras.config.sections import Backbone
from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError
from rotnet_keras.models.backbones.registry import backbone, build_backbone, layer_outputs, taps
from rotnet_keras.models.export import first_kernels, save_model
from rotnet_keras.models.flops import backbone_summary, forward_gflop
from rotnet_keras.models.rotnet import RotNet


def trainable_parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(("blocks", "expected"), [(3, 1_004_484), (4, 1_411_140), (5, 1_817_796)])
def test_nin_with_its_rotation_head_has_the_papers_parameters(blocks, expected):
    assert trainable_parameters(RotNet(backbone("nin", blocks=blocks))) == expected


def test_nin_taps_come_after_the_pools():
    model = backbone("nin", blocks=5)
    shapes = {tap: tuple(model.get_layer(tap).output.shape[1:]) for tap in taps(model)}
    assert shapes == {
        "conv1": (16, 16, 96),
        "conv2": (8, 8, 192),
        "conv3": (8, 8, 192),
        "conv4": (8, 8, 192),
        "conv5": (8, 8, 192),
    }


def test_compact_taps():
    model = backbone("compact", blocks=4)
    shapes = {tap: tuple(model.get_layer(tap).output.shape[1:]) for tap in taps(model)}
    assert shapes == {"conv1": (16, 16, 64), "conv2": (8, 8, 128), "conv3": (4, 4, 128), "conv4": (4, 4, 128)}


def test_alexnet_has_the_released_codes_shapes_and_parameters():
    model = backbone("alexnet", (224, 224, 3))
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7")
    shapes = [tuple(model.get_layer(name).output.shape[1:]) for name in names]
    maps = [(55, 64), (27, 64), (27, 192), (13, 192), (13, 384), (13, 256), (13, 256), (6, 256)]
    assert shapes == [*((side, side, channels) for side, channels in maps), (4096,), (4096,)]
    assert taps(model) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert trainable_parameters(model) + 4 * 4096 + 4 == 57_030_724


@pytest.mark.parametrize(
    ("name", "parameters", "further"),
    [("resnet50", 23_508_032, {}), ("resnet50v2", 23_500_352, {"post_relu": (7, 7, 2048)})],
)
def test_resnets_have_the_known_shapes_and_parameters(name, parameters, further):
    """25,557,032 parameters of PyTorch's ResNet-50 are these and 2,049,000 of its last layer."""
    model = backbone(name, (224, 224, 3))
    stages = {"conv1": (112, 112, 64), "conv2": (56, 56, 256), "conv3": (28, 28, 512), "conv4": (14, 14, 1024)}
    expected = stages | {"conv5": (7, 7, 2048)} | further
    assert {tap: tuple(model.get_layer(tap).output.shape[1:]) for tap in expected} == expected
    assert taps(model) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert trainable_parameters(model) == parameters


@pytest.mark.parametrize(
    ("name", "smallest", "sides"),
    [
        ("alexnet", 29, {"conv1": 32, "conv2": 15, "conv3": 7, "conv5": 7, "pool5": 3}),
        ("resnet50", 8, {"conv1": 64, "conv2": 64, "conv3": 32, "conv4": 16, "conv5": 8}),
        ("resnet50v2", 8, {"conv1": 64, "conv2": 64, "conv3": 32, "conv4": 16, "conv5": 8}),
    ],
)
def test_a_small_stem_keeps_the_maps_of_small_images(name, smallest, sides):
    spec = Backbone(name=name, width=0.03125, stem="small")
    model = build_backbone(spec, (64, 64, 3), [0] * 3, [1] * 3)
    assert {tap: model.get_layer(tap).output.shape[1] for tap in sides} == sides
    build_backbone(spec, (smallest, smallest, 3), [0] * 3, [1] * 3)
    with pytest.raises(DataError, match=f"{name} needs images of at least {smallest} pixels a side"):
        build_backbone(spec, (smallest - 1, smallest - 1, 3), [0] * 3, [1] * 3)


def test_a_bottleneck_starts_as_its_shortcut():
    model = backbone("resnet50", (32, 32, 3), width=0.0625)
    names = ["stage2_unit1_relu3", "stage2_unit2_relu3", "conv2"]
    pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3))
    first, second, last = keras.Model(model.input, [model.get_layer(name).output for name in names])(pictures)
    assert np.ptp(first) > 0
    np.testing.assert_array_equal(second, first)
    np.testing.assert_array_equal(last, first)


def test_a_resnet_pads_strided_convolutions_as_pytorch_does():
    """On both sides, so that a turned image has the turned map up to what the stride leaves out: none on odd sizes."""
    model = backbone("resnet50", (33, 33, 1), width=0.0625)
    image = np.random.default_rng(0).integers(0, 256, (1, 33, 33, 1)).astype(np.float32)
    kernel = np.asarray(model.get_layer("stem_conv").kernel)
    model.get_layer("stem_conv").kernel.assign((kernel + np.rot90(kernel, 2)) / 2)
    stem = keras.Model(model.input, model.get_layer("conv1").output)
    np.testing.assert_allclose(stem(np.rot90(image, 2, (1, 2))), np.rot90(stem(image), 2, (1, 2)), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("MobileNetV3Small", [16, 72, 96, 288, 576]),
        pytest.param("EfficientNetV2B0", [16, 32, 192, 672, 1280], marks=pytest.mark.slow),
        ("VGG16", [64, 128, 256, 512, 512]),
    ],
)
def test_taps_of_keras_applications_end_their_stages(name, channels):
    model = backbone(name, (64, 64, 3), mean=[0] * 3, std=[255] * 3)
    found = [model.get_layer(tap).output.shape for tap in taps(model)]
    assert [shape[3] for shape in found] == channels
    assert all(before[1] == 2 * after[1] for before, after in itertools.pairwise(found))
    assert model.output.shape == found[-1]
    scales = [layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization)]
    assert [layer.name for layer in scales] == ["normalization"]
    np.testing.assert_allclose(scales[0](np.full((1, 2, 2, 3), 51.0)), 0.2, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_has_the_taps_that_recipes_may_name(name, tmp_path):
    model = backbone(name, (96, 96, 3))
    assert taps(model) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    save_model(model, tmp_path / "backbone.keras")
    program = "import keras, sys; print(keras.models.load_model(sys.argv[1]).count_params())"
    command = [sys.executable, "-c", program, tmp_path / "backbone.keras"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(result.stdout.split()[-1]) == model.count_params()


def test_backbones_are_listed_and_built_on_the_command_line():
    rows = json.loads(invoke("backbones", "--json").stdout)
    assert [row["name"] for row in rows] == list(ARCHITECTURES)
    found = backbone_summary(Backbone(name="alexnet"), (224, 224, 3))
    assert found["taps"]["pool2"] == [13, 13, 192] and found["taps"]["fc7"] == [4096]
    assert found["parameters"] == 57_030_724 - 4 * 4096 - 4
    # Of it 0.117 in the dense layers: twice as many operations as weights there, 2 x 54.5 million.
    assert found["gflop"] == pytest.approx(1.42, abs=0.02)
    nin = invoke("backbones", "nin", "--size", "32").stdout
    assert "conv4  8 x 8 x 192" in nin and "1,410,368 trainable parameters; 0.501 GFLOP" in nin
    for arguments, complaint in (
        (["nim"], "did you mean 'nin'"),
        (["alexnet", "--size", "32"], "alexnet needs images of at least 63 pixels"),
        (["alexnet", "--size", "28", "--stem", "small"], "alexnet needs images of at least 29 pixels"),
        (["nin", "--stem", "small"], "leave stem out"),
        (["alexnet", "--blocks", "3"], "leave blocks out"),
        (["VGG16", "--width", "2"], "leave width out"),
    ):
        result = invoke("backbones", *arguments)
        assert result.returncode == 2 and complaint in result.stderr, result.stderr


def test_depthwise_and_separable_convolutions_are_counted():
    inputs = keras.Input((8, 8, 6))
    x = keras.layers.DepthwiseConv2D(3, padding="same")(inputs)
    model = keras.Model(inputs, keras.layers.SeparableConv2D(5, 3, padding="same")(x))
    assert forward_gflop(model) * 1e9 == 2 * 64 * (6 * 9 + 6 * 9 + 6 * 5)


def test_images_too_small_for_a_backbone_are_refused():
    with pytest.raises(DataError, match="alexnet needs images of at least 63 pixels a side, these have 32 x 32"):
        build_backbone(Backbone(name="alexnet"), (32, 32, 3), [0] * 3, [1] * 3)


def test_width_multiplies_the_channels():
    assert backbone("nin", width=0.5).get_layer("conv1").output.shape[-1] == 48


def pooled(tap, image):
    """What the pool that ends in `tap` makes of a (4, 4) image: the padding and the pool alone."""
    model = backbone("nin", (4, 4, 3))
    pad, pool = model.get_layer(f"block{tap[-1]}_pad"), model.get_layer(tap)
    return np.asarray(pool(pad(image[None, :, :, None].astype(np.float32))))[0, :, :, 0]


def test_max_pool_pads_both_sides_as_pytorch_does():
    image = np.arange(16).reshape(4, 4)
    # Windows of 3 from -1 on, by 2: rows (-1, 0, 1) and (1, 2, 3).
    np.testing.assert_array_equal(pooled("conv1", image), [[5, 7], [13, 15]])


def test_average_pool_counts_the_padding_as_pytorch_does():
    image = np.full((4, 4), 9.0)
    # Of nine places the first window has four in the image, two windows six, the last all nine.
    np.testing.assert_allclose(pooled("conv2", image), [[4, 6], [6, 9]], rtol=1e-6)


def test_batch_normalisation_and_initialisation_are_pytorchs():
    keras.utils.set_random_seed(0)
    model = backbone("nin")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma = np.asarray(layer.gamma)
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
            assert 0 <= gamma.min() < 0.2 and 0.8 < gamma.max() <= 1
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.asarray(layer.kernel)
            bound = np.prod(kernel.shape[:3]) ** -0.5
            assert not layer.use_bias
            assert 0.95 * bound < np.abs(kernel).max() <= bound
            np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.1)
    first, second = model.get_layer("block3_conv2").kernel, model.get_layer("block3_conv3").kernel
    assert not np.allclose(first, second)


def test_backbones_normalise_their_pixels():
    model = backbone("compact", mean=[10, 20, 30], std=[2, 4, 8])
    image = np.full((1, 32, 32, 3), 40, np.uint8)
    normalised = keras.Model(model.input, model.get_layer("normalization").output)(image)
    np.testing.assert_allclose(np.asarray(normalised)[0, 0, 0], [15, 5, 1.25], rtol=1e-6)


def test_first_kernels_are_scaled_by_their_batch_normalisation():
    model = backbone("compact", width=0.25)
    norm = model.get_layer("block1_bn1")
    norm.gamma.assign(np.full(8, 3.0))
    norm.moving_variance.assign(np.full(8, 4.0))
    expected = np.asarray(model.get_layer("block1_conv1").kernel) * 1.5
    np.testing.assert_allclose(first_kernels(model), expected, rtol=1e-4)


def test_an_unknown_backbone_is_refused_by_name():
    with pytest.raises(ValueError, match="compact"):
        backbone("nim")


def test_layers_are_read_side_by_side_with_the_smaller_map_enlarged():
    model = backbone("compact", (16, 16, 3), blocks=3, width=0.25)
    outputs = layer_outputs(model, ["conv1", "conv2", "conv1+conv2"])
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
    found = {name: np.asarray(values) for name, values in keras.Model(model.input, outputs)(images).items()}
    assert found["conv1"].shape == (2, 8, 8, 16) and found["conv2"].shape == (2, 4, 4, 32)
    enlarged = found["conv2"].repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(found["conv1+conv2"], np.concatenate([found["conv1"], enlarged], axis=3))


def test_a_map_and_a_vector_are_not_put_side_by_side():
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(2, 3, name="conv1")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="pooled")(features))
    with pytest.raises(DataError, match=r"conv1\+pooled: .*\(6, 6, 2\), \(2,\) cannot be put side by side"):
        layer_outputs(model, ["conv1+pooled"])
    with pytest.raises(DataError, match="no layer called conv7"):
        layer_outputs(model, ["conv1+conv7"])
