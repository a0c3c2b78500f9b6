"""The architectures of backbones by name, and what is known of each before it is built, without Keras."""

import typing
from dataclasses import dataclass
from typing import Literal

# Models of keras.applications by their names there. ConvNeXt and NASNet are left out: the stages of the one do not end
# in a layer, and the cells of the other read past one another, so that they have no taps.
Application = Literal[
    "DenseNet121",
    "DenseNet169",
    "DenseNet201",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2S",
    "EfficientNetV2M",
    "EfficientNetV2L",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResNet50V2",
    "ResNet101V2",
    "ResNet152V2",
    "VGG16",
    "VGG19",
    "Xception",
]
APPLICATIONS: tuple[str, ...] = typing.get_args(Application)
BackboneName = Literal["nin", "compact", "airbench", "alexnet", "resnet50", "resnet50v2", Application]


@dataclass(frozen=True)
class Architecture:
    """What is known of a backbone before it is built.

    Attributes:
        about: a description in a few words.
        taps: the number of taps, which are called conv1, conv2, ...; None where the recipe's `blocks` sets it.
        blocks: the number of blocks where a recipe says none; None if it is fixed.
        extra_layers: names of further layers whose features can be read.
        has_width: whether its numbers of channels can be multiplied by the recipe's `width`.
        min_side: side of the smallest images that it takes, in pixels.
        small_side: the same with the stem for small images; None if it has none.
        activations: what the recipe's `activation` may be.
    """

    about: str
    taps: int | None = 5
    blocks: int | None = None
    extra_layers: tuple[str, ...] = ()
    has_width: bool = True
    min_side: int = 32
    small_side: int | None = None
    activations: tuple[str, ...] = ("relu",)

    def smallest(self, stem: str) -> int:
        """Return the side of the smallest images that it takes with a stem of `Backbone.stem`, in pixels."""
        return self.small_side if stem == "small" and self.small_side else self.min_side


ARCHITECTURES: dict[str, Architecture] = {
    "nin": Architecture("the paper's net for CIFAR-10", taps=None, blocks=4, min_side=8),
    "compact": Architecture("small and fast on a CPU", taps=None, blocks=4, min_side=8),
    "airbench": Architecture(
        "of CIFAR-10 speed runs: learns in few steps", taps=None, blocks=3, min_side=8, activations=("relu", "silu")
    ),
    "alexnet": Architecture(
        "the paper's net for ImageNet and Places205",
        extra_layers=("pool1", "pool2", "pool5", "fc6", "fc7"),
        min_side=63,
        small_side=29,
    ),
    "resnet50": Architecture("ResNet-50 as in later work (v1.5)", small_side=8),
    "resnet50v2": Architecture(
        "ResNet-50 with normalisation before each convolution", extra_layers=("post_relu",), small_side=8
    ),
    **{name: Architecture("of keras.applications", has_width=name.startswith("MobileNet")) for name in APPLICATIONS},
}


def describe_architecture(name: str) -> dict[str, str]:
    """Return a row for a table of backbones: name, taps, blocks, width, about."""
    known = ARCHITECTURES[name]
    return {
        "name": name,
        "taps": ", ".join(["conv1 ... conv" + (str(known.taps) if known.taps else "<blocks>"), *known.extra_layers]),
        "blocks": "" if known.taps else "2 to 8",
        "width": "any" if known.has_width else "",
        "about": known.about,
    }
