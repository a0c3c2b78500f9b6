"""Checkpoints of the original PyTorch code, made here by nets of the same layout."""

import numpy as np
import pytest
from support.command_line import run_cli

from rotnet_keras.engine import keras

torch = pytest.importorskip("torch")
nn = torch.nn


def convolution(name, inputs, outputs, kernel):
    layers = nn.Sequential()
    layers.add_module("Conv", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False))
    layers.add_module("BatchNorm", nn.BatchNorm2d(outputs))
    layers.add_module("ReLU", nn.ReLU())
    block = nn.Module()
    block.layers = layers
    block.forward = layers.forward
    return name, block


class Pooled(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))


def nin(blocks):
    """The layout and names of the released NetworkInNetwork, and its taps."""
    specs = [[(3, 192, 5), (192, 160, 1), (160, 96, 1)], [(96, 192, 5), (192, 192, 1), (192, 192, 1)]]
    specs += [[(192, 192, 3), (192, 192, 1), (192, 192, 1)]] * (blocks - 2)
    parts = []
    for number, spec in enumerate(specs, 1):
        part = nn.Sequential()
        for position, sizes in enumerate(spec, 1):
            part.add_module(*convolution(f"Block{number}_ConvB{position}", *sizes))
        if number == 1:
            part.add_module("Block1_MaxPool", nn.MaxPool2d(3, 2, 1))
        if number == 2:
            part.add_module("Block2_AvgPool", nn.AvgPool2d(3, 2, 1))
        parts.append(part)
    end = nn.Sequential()
    end.add_module("GlobalAveragePooling", Pooled())
    end.add_module("Classifier", nn.Linear(192, 4))
    net = nn.Module()
    net._feature_blocks = nn.ModuleList([*parts, end])
    return net, {f"conv{i}": i - 1 for i in range(1, blocks + 1)}


def alexnet(part):
    """The layout and names of the released AlexNet, `part` as wide, and its taps."""
    c1, c2, c3, c4, fc = (round(part * n) for n in (64, 192, 384, 256, 4096))

    def conv(inputs, outputs, kernel, **options):
        return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, **options), nn.BatchNorm2d(outputs), nn.ReLU())

    def pool():
        return nn.MaxPool2d(3, 2)

    dense = nn.Sequential(
        *(nn.Flatten(), nn.Linear(36 * c4, fc, bias=False), nn.BatchNorm1d(fc), nn.ReLU()),
        *(nn.Linear(fc, fc, bias=False), nn.BatchNorm1d(fc), nn.ReLU()),
    )
    first, second = conv(3, c1, 11, stride=4, padding=2), conv(c1, c2, 5, padding=2)
    rest = [conv(c2, c3, 3, padding=1), conv(c3, c4, 3, padding=1), conv(c4, c4, 3, padding=1)]
    net = nn.Module()
    net._feature_blocks = nn.ModuleList(
        [first, pool(), second, pool(), *rest, pool(), dense, nn.Sequential(nn.Linear(fc, 4))]
    )
    taps = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc7"]
    return net, {tap: position for position, tap in enumerate(taps)}


def layer_outputs(net, images):
    """What each block of a net gives, in Keras's order of dimensions."""
    x, found = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), []
    with torch.no_grad():
        for block in net._feature_blocks:
            x = block(x)
            found.append(x.permute(0, 2, 3, 1).numpy() if x.ndim == 4 else x.numpy())
    return found


@pytest.mark.parametrize(
    ("name", "make", "size", "mean", "std"),
    [
        ("nin", lambda: nin(4), 32, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
        ("nin", lambda: nin(3), 32, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
        ("alexnet", lambda: alexnet(1 / 8), 224, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ],
)
def test_every_tap_computes_the_same(tmp_path, name, make, size, mean, std):
    torch.manual_seed(0)
    net, taps = make()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5)):
                nn.init.uniform_(tensor, low, low + 1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    net.eval()
    torch.save({"epoch": 200, "network": net.state_dict()}, tmp_path / "model_net_epoch200")
    result = run_cli(
        "convert", tmp_path / "model_net_epoch200", "--backbone", name, "--to", tmp_path / "out" / "backbone.keras"
    )
    assert result.returncode == 0, result.stderr
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3)).astype(np.float32)
    expected = layer_outputs(net, ((pixels - mean) / std).astype(np.float32))
    backbone = keras.models.load_model(tmp_path / "out" / "backbone.keras")
    features = keras.Model(backbone.input, {tap: backbone.get_layer(tap).output for tap in taps})
    for tap, values in features.predict(pixels, verbose=0).items():
        np.testing.assert_allclose(values, expected[taps[tap]], rtol=1e-4, atol=1e-4, err_msg=tap)
    logits = expected[-1]
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rotnet = keras.models.load_model(tmp_path / "out" / "rotnet.keras")
    np.testing.assert_allclose(rotnet.predict(pixels, verbose=0), wanted, atol=1e-4)


def test_files_of_other_kinds_are_refused(tmp_path):
    def convert(name, backbone="nin"):
        return run_cli("convert", tmp_path / name, "--backbone", backbone, "--to", tmp_path / "backbone.keras")

    assert convert("none").returncode == 3
    (tmp_path / "text").write_text("no checkpoint")
    result = convert("text")
    assert result.returncode == 3 and "not a PyTorch checkpoint" in result.stderr
    torch.save({"network": nin(3)[0].state_dict()}, tmp_path / "nin")
    result = convert("nin", "alexnet")
    assert result.returncode == 3 and "Traceback" not in result.stderr
    state = nin(3)[0].state_dict()
    state.pop("_feature_blocks.1.Block2_ConvB1.layers.Conv.weight")
    torch.save(state, tmp_path / "part")
    result = convert("part")
    assert result.returncode == 3 and "it has no tensor for block2_conv1/kernel" in result.stderr
    assert not (tmp_path / "backbone.keras").exists()
