"""A disk of few megabytes."""

import shutil
import subprocess
from contextlib import contextmanager


def may_mount(folder):
    """Whether this user can mount a disk on a folder here."""
    if not shutil.which("mount"):
        return False
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    return not tried.returncode and not subprocess.run(["umount", folder], check=False).returncode


class Disk:
    """A file system in memory, mounted on a folder."""

    def __init__(self, folder):
        self.folder = folder

    def change(self, *options):
        """Give it another size ("size=20m"), or make it read-only ("ro") and writable again ("rw")."""
        subprocess.run(["mount", "-o", ",".join(["remount", *options]), self.folder], check=True)


@contextmanager
def small_disk(folder, megabytes):
    """A disk that is there while this lasts."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
