"""The backbones that there are, by name, and what a recipe may ask of each; nothing of Keras is needed for that."""

import typing
from dataclasses import dataclass
from typing import Literal

# As keras.applications calls them. Of its models ConvNeXt's stages end in no layer and NASNet's cells look past one
# another, so that they have no taps.
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
Name = Literal["nin", "compact", "alexnet", "resnet50", "resnet50v2", Application]


@dataclass(frozen=True)
class Architecture:
    """What is known of a backbone before it is built.

    Attributes:
        about: in a few words.
        taps: how many there are, called conv1, conv2, ...; None where the recipe's `blocks` says it.
        further: other layers with features to read.
        width: whether it can be made wider.
        smallest: side of the smallest images it takes, in pixels.
    """

    about: str
    taps: int | None = 5
    further: tuple[str, ...] = ()
    width: bool = True
    smallest: int = 32


ARCHITECTURES: dict[str, Architecture] = {
    "nin": Architecture("the paper's net for CIFAR-10", taps=None, smallest=8),
    "compact": Architecture("small and fast on a CPU", taps=None, smallest=8),
    "alexnet": Architecture(
        "the paper's net for ImageNet and Places205",
        further=("pool1", "pool2", "pool5", "fc6", "fc7"),
        smallest=63,
    ),
    "resnet50": Architecture("ResNet-50 as later work has it (v1.5)"),
    "resnet50v2": Architecture("ResNet-50 with normalisation before each convolution", further=("post_relu",)),
    **{name: Architecture("of keras.applications", width=name.startswith("MobileNet")) for name in APPLICATIONS},
}


def described(name: str) -> dict[str, str]:
    """A backbone in words: name, taps, blocks, width, about."""
    known = ARCHITECTURES[name]
    return {
        "name": name,
        "taps": ", ".join(["conv1 ... conv" + (str(known.taps) if known.taps else "<blocks>"), *known.further]),
        "blocks": "" if known.taps else "2 to 8",
        "width": "any" if known.width else "",
        "about": known.about,
    }
