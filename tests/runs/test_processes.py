"""What is known of a process: of this machine, of one that was booted since, and of others."""

import psutil
import pytest

from rotnet_keras import host
from rotnet_keras.host import Machine
from rotnet_keras.runs import processes
from rotnet_keras.runs.processes import Process, find, is_running, process_identity

HERE = Machine("here", "m1", "b1", "pid:[1]")


@pytest.fixture
def identity(monkeypatch):
    """This process, as one that runs on the machine `HERE`."""
    monkeypatch.setattr(processes, "this_machine", lambda: HERE)
    return process_identity(psutil.Process())


def test_this_process_is_running_and_knows_its_machine():
    identity = process_identity(psutil.Process())
    assert is_running(identity) and {"host", "machine", "boot", "pid_namespace"} <= identity.keys()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Process.RUNNING),
        ({"host": "renamed"}, Process.RUNNING),
        ({"pid": 2**22 + 1}, Process.GONE),
        ({"since_boot": -100.0}, Process.GONE),
        # Its number means nothing after a reboot, and nothing on another machine or in another container.
        ({"boot": "b0"}, Process.GONE),
        ({"boot": "b0", "host": "renamed"}, Process.GONE),
        ({"boot": "b0", "machine": "m2"}, Process.ELSEWHERE),
        ({"boot": "b0", "machine": None}, Process.GONE),
        ({"boot": "b0", "machine": None, "host": "far"}, Process.ELSEWHERE),
        ({"pid_namespace": "pid:[2]"}, Process.ELSEWHERE),
        # Where there is no boot id, and in folders of older versions.
        ({"boot": None, "host": "renamed"}, Process.RUNNING),
        ({"boot": None, "machine": None}, Process.RUNNING),
        ({"boot": None, "machine": None, "host": "far"}, Process.ELSEWHERE),
    ],
)
def test_a_process_is_known_by_the_boot_and_the_machine_rather_than_by_the_host_name(identity, changes, expected):
    assert find(identity | changes) is expected
    assert is_running(identity | changes) == (expected is Process.RUNNING)


def test_the_machine_of_a_container_is_not_known_by_its_image(monkeypatch, tmp_path):
    """All containers of an image may have one machine id; and the id itself is written nowhere."""
    monkeypatch.setattr(host.platform, "system", lambda: "Linux")
    monkeypatch.setattr(host, "_content", {"/etc/machine-id": "secret", "/proc/sys/kernel/random/boot_id": "b"}.get)
    for marks, known in (((tmp_path,), False), ((), host._lasting_identity.__wrapped__()[2] == host.FIRST_NAMESPACE)):
        monkeypatch.setattr(host, "CONTAINER_MARKS", marks)
        machine, boot, _ = host._lasting_identity.__wrapped__()
        assert boot == "b" and bool(machine) == known and "secret" not in str(machine)


def test_a_mac_is_known_by_its_platform_and_its_boot(monkeypatch):
    said = {
        "ioreg": '+-o Root\n    {\n      "IOPlatformUUID" = "11112222-AAAA"\n      "IOBusyInterest" = "x"\n    }',
        "sysctl": "33334444-BBBB",
    }
    monkeypatch.setattr(host.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(host, "_output", lambda name, *rest: said[name])
    assert host._lasting_identity.__wrapped__() == (host._hashed("11112222-AAAA"), "33334444-BBBB", None)
    said |= {"ioreg": "", "sysctl": ""}
    assert host._lasting_identity.__wrapped__() == (None, None, None)
