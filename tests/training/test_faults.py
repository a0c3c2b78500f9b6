"""What lies under a run fails: disks, folders, memory."""

import shutil
import subprocess

import pytest
from support.command_line import command, run_cli
from support.small_disk import may_mount, small_disk
from support.whole_runs import assert_same_end, events_of, run_of, wait_for, wait_for_step


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if not may_mount(folder):
        pytest.skip("needs the right to mount a disk")
    with small_disk(folder, 1) as disk:
        yield disk


@pytest.mark.slow
def test_on_a_full_disk_a_run_ends_with_one_message_and_resumes_to_the_same_end(finished, tiny_recipe, disk):
    _, whole = finished
    recipe = disk.folder / "tiny.toml"
    shutil.copy(whole.recipe, recipe)
    checkpoint = max(file.stat().st_size for file in whole.checkpoints.iterdir())
    disk.change(f"size={round(2.5 * checkpoint)}")
    result = run_cli("run", recipe, "--name", "run", cwd=disk.folder)
    run = run_of(disk.folder, "run")
    assert result.returncode == 1 and "No space left on device" in result.stdout, result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert not list(run.checkpoints.glob(".*"))
    disk.change("size=60m")
    assert run_cli("resume", "run", cwd=disk.folder).returncode == 0
    assert_same_end(run, whole)
    assert events_of(run, "step")[-1]["step"] == 30


@pytest.mark.slow
def test_a_disk_that_became_read_only_is_reported(tiny_recipe, disk):
    disk.change("size=60m")
    process = subprocess.Popen(
        command("run", tiny_recipe, "train.epochs=1000", "--name", "run"),
        cwd=disk.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    run = run_of(disk.folder, "run")
    wait_for_step(run, 3)
    process.send_signal(15)
    process.communicate(timeout=60)
    disk.change("ro")
    for arguments in (("resume", "run"), ("run", tiny_recipe)):
        result = run_cli(*arguments, cwd=disk.folder)
        assert result.returncode == 1 and "Read-only file system" in result.stderr
        assert "Traceback" not in result.stderr and len(result.stderr.splitlines()) == 1
    disk.change("rw")
    assert run.state() == "stopped"


@pytest.mark.slow
def test_a_run_whose_folder_is_deleted_ends(tiny_recipe):
    folder = tiny_recipe.parent
    process = subprocess.Popen(
        command("run", tiny_recipe, "train.epochs=1000", "--name", "run"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    run = run_of(folder, "run")
    wait_for_step(run, 3)
    shutil.rmtree(run.path, ignore_errors=True)
    wait_for(lambda: process.poll() is not None, "the end of the run")
    told = process.stdout.read()
    assert process.returncode == 1 and told.splitlines()[-1].endswith("no longer exists") and "Traceback" not in told
    assert not run.path.exists()
