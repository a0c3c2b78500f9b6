"""rotnet-keras: learn image features without labels, by predicting rotations.

The public names load what they need on first use, so that importing the package is instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rotnet_keras.backbones import backbone
    from rotnet_keras.exports import load
    from rotnet_keras.launch import run
    from rotnet_keras.recipe import load_recipe
    from rotnet_keras.rotation import rotate_batch

__all__ = ["backbone", "load", "load_recipe", "rotate_batch", "run"]
__version__ = "0.1.0"

_HOMES = {
    "backbone": "rotnet_keras.backbones",
    "load": "rotnet_keras.exports",
    "load_recipe": "rotnet_keras.recipe",
    "rotate_batch": "rotnet_keras.rotation",
    "run": "rotnet_keras.launch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rotnet_keras' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
