"""Files that are replaced whole."""

import os
import stat
import threading
from itertools import chain, repeat

import pytest

from rotnet_keras.data import fingerprints
from rotnet_keras.errors import RunError
from rotnet_keras.files import make_private_folder, remove_unfinished, replacing, write_atomically
from rotnet_keras.runs.control import folder_size
from rotnet_keras.runs.folder import RunFolder


def test_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([n]) * 200_000 for n in range(8)]
    failed, seen = [], set()

    def write(content):
        try:
            for _ in range(15):
                write_atomically(path, content)
                seen.add(path.read_bytes())
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and seen <= set(contents)
    assert list(tmp_path.iterdir()) == [path]


def test_neither_a_file_nor_a_link_of_others_is_written_to(tmp_path, monkeypatch):
    """Whoever guesses the temporary name can put something there before."""
    theirs, target = tmp_path / ".taken.tmp.file", tmp_path / "secret"
    target.write_text("theirs")
    theirs.symlink_to(target)
    names = chain(["taken"], repeat("free"))
    monkeypatch.setattr("secrets.token_hex", lambda count: next(names))
    write_atomically(tmp_path / "file", b"ours")
    assert (tmp_path / "file").read_bytes() == b"ours"
    assert target.read_text() == "theirs" and theirs.is_symlink()


def test_the_mode_of_a_file_stays_and_a_new_one_has_the_usual(tmp_path):
    path, usual = tmp_path / "file", tmp_path / "usual"
    usual.touch()
    write_atomically(path, b"1")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
    path.chmod(0o640)
    write_atomically(path, b"2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_had_begun_to_write_is_removed(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    (run / "samples").mkdir(parents=True)
    (run / ".export.tmp-abc").mkdir()
    elsewhere.mkdir()
    files = ["samples/.0a1b.tmp.images.png", ".0a1b.tmp.job.json", ".0a1b.tmp.run.json", ".export.tmp-abc/model.keras"]
    kept = ["samples/images.png", ".hidden", "notes.tmp", "job.json"]
    for name in files + kept:
        (run / name).write_bytes(b"half")
    (elsewhere / ".0a1b.tmp.theirs").write_bytes(b"theirs")
    (run / "link").symlink_to(elsewhere)
    (run / ".0a1b.tmp.link").symlink_to(elsewhere)
    remove_unfinished(run, seconds=100)
    assert all((run / name).exists() for name in files)
    remove_unfinished(run, besides=("job.json",))
    left = {str(path.relative_to(run)) for path in run.rglob("*")}
    assert left == {"samples", "link", ".0a1b.tmp.job.json", *kept}
    assert (elsewhere / ".0a1b.tmp.theirs").exists()
    os.utime(run / ".0a1b.tmp.job.json", (0, 0))
    remove_unfinished(run, seconds=100)
    assert not (run / ".0a1b.tmp.job.json").exists()


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(tmp_path):
    run, folder, elsewhere = tmp_path / "run", tmp_path / "run" / "export", tmp_path / "elsewhere"
    for each in (run, folder, elsewhere):
        each.mkdir()
    with replacing(folder / "model.keras", run) as temporary:
        temporary.write(b"ours")
        folder.rename(run / "before")
        folder.symlink_to(elsewhere)
    assert (run / "before" / "model.keras").read_bytes() == b"ours"
    assert list(elsewhere.iterdir()) == [] and len(list((run / "before").iterdir())) == 1


def test_a_new_folder_of_the_cache_is_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "b"))
    before = os.umask(0)
    try:
        make_private_folder(tmp_path / "a" / "cache")
        (tmp_path / "x").write_bytes(b"x")
        fingerprints.file_digests(tmp_path, ["x"])
        make_private_folder(tmp_path)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a" / "cache", tmp_path / "b")] == [0o700] * 2
    assert len(list((tmp_path / "b").glob("contents-*.npz"))) == 1


def test_folders_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    closed, scandir = tmp_path / "run" / "samples", os.scandir
    closed.mkdir(parents=True)
    (closed / "one.png").write_bytes(bytes(7))
    (tmp_path / "run" / "log.txt").write_bytes(bytes(5))
    (tmp_path / "run" / "link").symlink_to(closed / "one.png")
    assert folder_size(tmp_path / "run") == (12 + (tmp_path / "run" / "link").lstat().st_size, [])

    def refused(path):
        if os.fspath(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    (tmp_path / "run" / "link").unlink()
    assert folder_size(tmp_path / "run") == (5, [closed])
    with pytest.raises(RunError, match="samples may not be read by this user"):
        RunFolder(tmp_path / "run").require_own_files()
