"""What this machine would run on: for a user who wonders, and for those who are asked for help."""

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

import psutil

from rotnet_keras.engine import device_name
from rotnet_keras.runs.folder import default_runs_dir


def diagnosis() -> dict[str, str]:
    """Versions, devices, memory and disk, as a run on this machine would find them."""
    packages = ("rotnet-keras", "keras", "tensorflow", "tensorflow-datasets", "numpy")
    found = {"python": sys.version.split()[0]}
    found |= {name: importlib.metadata.version(name) for name in packages}
    runs_dir = default_runs_dir().absolute()
    existing = next(p for p in [runs_dir, *runs_dir.parents] if p.is_dir())
    found["device"] = device_name()
    found["cpu cores"] = str(os.cpu_count())
    found["memory available"] = f"{psutil.virtual_memory().available / 2**30:.1f} GiB"
    found["oneDNN"] = "on" if os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1" else "off"
    found["tfds data"] = os.environ.get("TFDS_DATA_DIR", str(Path("~/tensorflow_datasets").expanduser()))
    found["runs"] = f"{runs_dir} ({shutil.disk_usage(existing).free / 2**30:.1f} GiB free)"
    found["runs can be written"] = "yes" if os.access(existing, os.W_OK) else "no"
    return found
