from types import SimpleNamespace

import pytest

from rotnet_keras import engine
from rotnet_keras.training.trainer import run_precision

AMX = ["avx512f", "avx512_bf16", "amx_bf16"]


@pytest.mark.parametrize(
    ("flags", "gpus", "expected"),
    [
        (AMX, [], "mixed_bfloat16"),
        (["avx512f", "avx512_bf16"], [], "mixed_bfloat16"),
        (["avx2", "avx512f"], [], "float32"),
        ([], [], "float32"),
        (AMX, [(9, 0)], "mixed_bfloat16"),
        ([], [(8, 0), (7, 5)], "mixed_float16"),
        (AMX, [(6, 1)], "float32"),
        ([], [None], "float32"),
    ],
)
def test_the_fastest_precision_depends_on_the_hardware(monkeypatch, flags, gpus, expected):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(engine, "processor_flags", lambda: flags)
    monkeypatch.setattr(engine.tf.config, "list_physical_devices", lambda kind: list(range(len(gpus))))
    details = [{} if gpu is None else {"compute_capability": gpu} for gpu in gpus]
    monkeypatch.setattr(engine.tf.config.experimental, "get_device_details", lambda gpu: details[gpu])
    assert engine.resolve_precision("auto") == expected


@pytest.mark.parametrize(("isa", "expected"), [("avx2", "float32"), ("AVX512_CORE_AMX", "mixed_bfloat16")])
def test_a_limit_of_onednn_is_one_of_the_hardware(monkeypatch, isa, expected):
    monkeypatch.setattr(engine, "processor_flags", lambda: AMX)
    monkeypatch.setattr(engine.tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert engine.resolve_precision("auto") == expected


@pytest.mark.parametrize(
    ("asked", "recorded", "flags", "strategy", "expected"),
    [
        ("auto", {}, AMX, "auto", "mixed_bfloat16"),
        ("auto", {"precision": "float32"}, AMX, "auto", "float32"),
        ("mixed_float16", {}, AMX, "auto", "mixed_float16"),
        ("auto", {}, "", "tpu", "mixed_bfloat16"),
    ],
)
def test_a_run_keeps_the_precision_of_its_first_start(monkeypatch, asked, recorded, flags, strategy, expected):
    monkeypatch.setattr(engine, "processor_flags", lambda: flags)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    facts = dict(recorded)
    session = SimpleNamespace(folder=SimpleNamespace(facts=lambda: facts), record=facts.update)
    recipe = SimpleNamespace(train=SimpleNamespace(precision=asked), devices=SimpleNamespace(strategy=strategy))
    assert run_precision(session, recipe) == expected
    assert facts == {"precision": expected}
