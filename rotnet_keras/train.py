"""From a run folder with a recipe to a run folder with results: the one way every run takes."""

import importlib
import importlib.metadata
import os
import platform
import traceback
from typing import Any

import psutil

from rotnet_keras.console import Console
from rotnet_keras.errors import RotnetError, RunStopped
from rotnet_keras.events import EventWriter
from rotnet_keras.host import processor
from rotnet_keras.kinds import KINDS
from rotnet_keras.recipe import load_recipe
from rotnet_keras.runs import RunFolder, command_line
from rotnet_keras.session import Session
from rotnet_keras.stopping import Stop

RECORDED_PACKAGES = ("rotnet-keras", "keras", "tensorflow", "numpy")


def run(folder: RunFolder) -> int:
    """Start or resume the run in a folder, in this process, to its end.

    Args:
        folder: holds at least a resolved `recipe.toml`.

    Returns:
        The exit code: 0 finished, 130 or 143 stopped with a checkpoint, otherwise an error's.

    Raises:
        RunError: another process is running it, or a newer version of this package wrote it.
    """
    folder.refuse_newer()
    recipe = load_recipe(folder.recipe)
    events = EventWriter(folder.events_file)
    stop = Stop(folder.stop_file)
    console = Console(folder.log)
    session = Session(folder, recipe, events, console, stop)
    try:
        session.record(**_process_facts())
        outcome, code, message = _work(session)
        session.event("end", outcome=outcome, exit_code=code, message=message)
        if message:
            session.say(message)
        return code
    finally:
        console.close()
        events.close()


def _work(session: Session) -> tuple[str, int, str]:
    """Do what the recipe says; (outcome, exit code, message)."""
    way_on = command_line("resume", session.folder)
    session.event("start", pid=os.getpid())
    module, function = KINDS[session.recipe.kind].runner.split(":")
    try:
        session.say(f"Run {session.folder.name} in {session.folder.path}")
        if KINDS[session.recipe.kind].trains:
            session.say("Starting TensorFlow; the first step takes longer, it traces the graph.")
        getattr(importlib.import_module(module), function)(session)
    except RunStopped as stopped:
        return "stopped", stopped.exit_code, f"Stopped. Go on with: {way_on}"
    except RotnetError as error:
        return "failed", error.exit_code, f"Error: {error}"
    except OSError as error:
        traceback.print_exc()
        return "failed", 1, f"Error: {error}. What was saved is intact; go on with: {way_on}"
    except Exception as error:
        traceback.print_exc()
        reason = (str(error).splitlines() or [""])[0][:500]
        return "failed", 1, f"Error: {type(error).__name__}: {reason} (more in {session.folder.log})"
    return "finished", 0, ""


def _process_facts() -> dict[str, Any]:
    """What `run.json` says of the process that works on the run."""
    process = psutil.Process()
    return {
        "pid": process.pid,
        "create_time": process.create_time(),
        "host": os.uname().nodename,
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "cpus": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
    }
