"""rotnet-keras: learn image features without labels, by predicting rotations.

The public names load what they need on first use, so that importing the package is instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rotnet_keras.config.loading import load_recipe
    from rotnet_keras.models.backbones.registry import backbone
    from rotnet_keras.models.export import load
    from rotnet_keras.models.rotation import rotate_batch
    from rotnet_keras.runs.launch import run

__all__ = ["backbone", "load", "load_recipe", "rotate_batch", "run"]
__version__ = "0.1.0"

_HOMES = {
    "backbone": "rotnet_keras.models.backbones.registry",
    "load": "rotnet_keras.models.export",
    "load_recipe": "rotnet_keras.config.loading",
    "rotate_batch": "rotnet_keras.models.rotation",
    "run": "rotnet_keras.runs.launch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rotnet_keras' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
