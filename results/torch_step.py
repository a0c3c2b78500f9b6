"""RotNet's training step on CIFAR-10 in PyTorch, to hold `rotnet-keras bench training` against.

    pip install torch        # in an environment of its own
    rotnet-keras bench training --against "python results/torch_step.py --mode compile"

The network, the four copies of each image, the loss and the optimizer are those of the recipe `cifar_nin`. The
last line printed is JSON: rotated images a second, the median over steps.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn

MODES = ("plain", "channels_last", "compile", "compile_bfloat16")


class Block(nn.Sequential):
    """Three convolutions with batch normalisation and ReLU."""

    def __init__(self, inputs: int, kernel: int, channels: tuple[int, int, int], pool: nn.Module | None = None) -> None:
        layers: list[nn.Module] = []
        for size, outputs in zip((kernel, 1, 1), channels, strict=True):
            layers.append(nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        super().__init__(*layers, *([pool] if pool else []))


def network_in_network(blocks: int) -> nn.Sequential:
    """The paper's backbone and rotation head."""
    wide = (192, 192, 192)
    deeper = [Block(192, 3, wide) for _ in range(blocks - 2)]
    return nn.Sequential(
        Block(3, 5, (192, 160, 96), nn.MaxPool2d(3, 2, padding=1)),
        Block(96, 5, wide, nn.AvgPool2d(3, 2, padding=1)),
        *deeper,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(192, 4),
    )


def main() -> None:
    """Train a few steps on random images and print how fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES, default="plain")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--batch", type=int, default=128, help="images; four times as many inputs")
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()

    torch.manual_seed(0)
    layout = torch.contiguous_format if options.mode == "plain" else torch.channels_last
    model = network_in_network(options.blocks).to(memory_format=layout)
    forward = torch.compile(model) if options.mode.startswith("compile") else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = torch.randn(options.batch, 3, 32, 32)
    turns = torch.arange(4).repeat_interleave(options.batch)
    criterion = nn.CrossEntropyLoss()

    def step() -> None:
        copies = torch.cat([images.rot90(turn, (2, 3)) for turn in range(4)]).contiguous(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.mode.endswith("bfloat16")):
            logits = forward(copies)
            loss = criterion(logits, turns)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        (logits.argmax(dim=1) == turns).float().mean().item()

    seconds = []
    for _ in range(2 + options.steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    rate = 4 * options.batch / statistics.median(seconds[2:])
    print(json.dumps({"mode": options.mode, "torch": torch.__version__, "rotated_images_per_s": round(rate, 2)}))


if __name__ == "__main__":
    main()
