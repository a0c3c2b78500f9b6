"""Two processes of one training never use the same GPU."""

import json
import sys
from types import SimpleNamespace

import pytest
from support.command_line import run_python

from rotnet_keras.errors import RecipeError
from rotnet_keras.training import gpu_claims

UUIDS = ["GPU-a", "GPU-b", "GPU-c"]


@pytest.fixture
def driver(monkeypatch):
    """A driver with three GPUs."""
    fake = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(UUIDS),
        nvmlDeviceGetHandleByIndex=UUIDS.__getitem__,
        nvmlDeviceGetUUID=str,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, UUIDS), ("", []), ("-1", []), ("2,0", ["GPU-c", "GPU-a"]), ("GPU-b", ["GPU-b"]), ("1,-1,2", ["GPU-b"])],
)
def test_the_gpus_of_a_process_are_those_that_are_visible(driver, monkeypatch, visible, expected):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_claims.visible_gpus() == expected


def test_without_a_driver_there_are_none(driver):
    def fail():
        raise driver.NVMLError

    driver.nvmlInit = fail
    assert gpu_claims.visible_gpus() == []


def test_a_gpu_has_one_process_until_it_ends(monkeypatch):
    claim = "from rotnet_keras.training.gpu_claims import claim_gpus; claim_gpus(['GPU-here'])"
    run_python(claim)
    monkeypatch.setattr(gpu_claims, "_claims", [])
    gpu_claims.claim_gpus(["GPU-here"])
    with pytest.raises(AssertionError, match="another process that trains together with others uses GPU GPU-here"):
        run_python(claim)
    while gpu_claims._claims:
        gpu_claims._claims.pop().close()
    run_python(claim)


def test_processes_on_one_host_need_gpus_of_their_own(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def config(*hosts, index=0):
        return json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}})

    for index in (0, 1):
        with pytest.raises(RecipeError, match="2 processes on a would each use the same 1 GPU"):
            gpu_claims.check_processes_here(1, config("a:1", "a:2", index=index))
    gpu_claims.check_processes_here(1, config("a:1", "b:1"))
    gpu_claims.check_processes_here(0, config("a:1", "a:2"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    gpu_claims.check_processes_here(1, config("a:1", "a:2"))
