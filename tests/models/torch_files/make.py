"""Make the checkpoints in this folder with PyTorch, in the layout and with the names of the authors' code.

    python tests/models/torch_files/make.py

It needs PyTorch, which the tests do not: they read what it wrote. Each net is a narrow one with random weights. Beside
its checkpoint lies what PyTorch computes for three images: the features of every block, and the classifier's logits.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

FOLDER = Path(__file__).parent
CIFAR = ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def basic_block(inputs, outputs, kernel):
    block = nn.Module()
    block.layers = nn.Sequential()
    block.layers.add_module("Conv", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False))
    block.layers.add_module("BatchNorm", nn.BatchNorm2d(outputs))
    block.layers.add_module("ReLU", nn.ReLU())
    block.forward = block.layers.forward
    return block


class Pooled(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))


def nin(blocks, part, classes=4, channels=3, avg_on_conv3=False):
    """The released NetworkInNetwork, `part` as wide, and the name of each block's output."""
    wide, middle, narrow = (round(part * n) for n in (192, 160, 96))
    specs = [[(channels, wide, 5), (wide, middle, 1), (middle, narrow, 1)]]
    specs += [[(narrow, wide, 5), (wide, wide, 1), (wide, wide, 1)]]
    specs += [[(wide, wide, 3), (wide, wide, 1), (wide, wide, 1)]] * (blocks - 2)
    parts = []
    for number, spec in enumerate(specs, 1):
        block = nn.Sequential()
        for position, sizes in enumerate(spec, 1):
            block.add_module(f"Block{number}_ConvB{position}", basic_block(*sizes))
        if number == 1:
            block.add_module("Block1_MaxPool", nn.MaxPool2d(3, 2, 1))
        if number == 2:
            block.add_module("Block2_AvgPool", nn.AvgPool2d(3, 2, 1))
        if number == 3 and avg_on_conv3:
            block.add_module("Block3_AvgPool", nn.AvgPool2d(3, 2, 1))
        parts.append(block)
    end = nn.Sequential()
    end.add_module("GlobalAveragePooling", Pooled())
    end.add_module("Classifier", nn.Linear(wide, classes))
    net = nn.Module()
    net._feature_blocks = nn.ModuleList([*parts, end])
    return net, [*(f"conv{block}" for block in range(1, blocks + 1)), "logits"]


def alexnet(part):
    """The released AlexNet, `part` as wide, and the name of each block's output."""
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
    return net, ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc7", "logits"]


def images(size, channels=3):
    """Three images with edges and with no symmetry, that the tests make again."""
    rows, columns, kinds = np.mgrid[:size, :size, :channels]
    return np.stack([(rows * (7 + n) + columns * columns * (n + 1) + 60 * kinds) % 256 for n in range(3)])


def outputs(net, names, size, mean, std):
    pixels = images(size, len(mean))
    x = torch.from_numpy(((pixels - mean) / std).astype(np.float32).transpose(0, 3, 1, 2).copy())
    found = {}
    with torch.no_grad():
        for name, block in zip(names, net._feature_blocks, strict=True):
            x = block(x)
            found[name] = x.permute(0, 2, 3, 1).numpy() if x.ndim == 4 else x.numpy()
    return found


def with_statistics(net):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5)):
                nn.init.uniform_(tensor, low, low + 1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def save(name, made, size, statistics, zipped, saved=None):
    net, names = made
    with_statistics(net)
    # Of a map only every third row and column, to keep the files small.
    found = {
        key: value[:, ::3, ::3] if value.ndim == 4 else value
        for key, value in outputs(net, names, size, *statistics).items()
    }
    np.savez_compressed(FOLDER / f"{name}.npz", **found)
    content = saved(net) if saved else {"epoch": 200, "network": net.state_dict()}
    torch.save(content, FOLDER / name, _use_new_zipfile_serialization=zipped)


if __name__ == "__main__":
    torch.manual_seed(0)
    save("nin4_legacy", nin(4, 1 / 24), 32, CIFAR, False)
    save("nin4_pooled_zip", nin(4, 1 / 24, avg_on_conv3=True), 32, CIFAR, True)
    save(
        "nin3_parameters_zip",
        nin(3, 1 / 24),
        32,
        CIFAR,
        True,
        lambda net: {**net.state_dict(), **dict(net.named_parameters())},
    )
    save("alexnet_legacy", alexnet(1 / 64), 224, IMAGENET, False)
    save("grey_nin3_zip", nin(3, 1 / 24, channels=1), 32, ((110.0,), (50.0,)), True)
    torch.save(nin(3, 1 / 24)[0], FOLDER / "whole_module_zip")
