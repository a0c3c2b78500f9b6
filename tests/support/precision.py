"""Tests of bfloat16, which oneDNN does not survive where it is kept from the instructions for it."""

import os

import pytest

from rotnet_keras.engine import WITHOUT_BFLOAT16

needs_bfloat16 = pytest.mark.skipif(
    os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in WITHOUT_BFLOAT16,
    reason="ONEDNN_MAX_CPU_ISA keeps oneDNN from bfloat16",
)
BFLOAT16 = pytest.param("mixed_bfloat16", marks=needs_bfloat16)
