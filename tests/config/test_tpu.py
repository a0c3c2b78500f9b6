"""What a TPU cannot do is refused before anything is started."""

import pytest

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.errors import RecipeError


def test_a_batch_in_parts_is_refused_on_a_tpu():
    load_recipe("quickstart", {"train.accumulate": 2})
    load_recipe("quickstart", {"devices.strategy": "tpu"})
    with pytest.raises(RecipeError, match="cannot be compiled for a TPU"):
        load_recipe("quickstart", {"devices.strategy": "tpu", "train.accumulate": 2})
