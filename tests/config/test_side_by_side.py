"""Probes of layers side by side: which names a recipe accepts."""

import pytest

from rotnet_keras.config.validation import cross_section_errors


@pytest.mark.parametrize(
    ("tap", "refused"),
    [
        ("conv1+conv2", ""),
        (["conv2", "conv1+conv2"], ""),
        ("conv1+conv7", "no tap 'conv1+conv7' in compact: expected 'all', conv1, conv2, or several joined by '+'"),
        ("all+conv1", "no tap 'all+conv1' in compact"),
        ("conv1+", "no tap 'conv1+' in compact"),
    ],
)
def test_layers_joined_by_a_plus_must_all_exist(tap, refused):
    recipe = {"backbone": {"name": "compact", "blocks": 2}, "probe": [{"head": "mlp", "tap": tap}]}
    messages = [message for _, message in cross_section_errors(recipe)]
    assert [message[: len(refused)] for message in messages] == [refused] * bool(refused)


def test_a_probe_of_a_file_takes_names_of_layers_joined_by_a_plus():
    def problems(tap):
        return [
            message for _, message in cross_section_errors({"kind": "probe", "probe": [{"head": "mlp", "tap": tap}]})
        ]

    assert problems("block2_out+pool5") == []
    assert problems("conv2+") == ["tap: not a layer's name: 'conv2+'"]
    assert problems("conv2+../x") == ["tap: not a layer's name: 'conv2+../x'"]
