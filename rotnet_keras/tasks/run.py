"""From a run folder with a recipe to a run folder with results: the one way every run takes."""

import importlib.metadata
import os
import platform
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import psutil

from rotnet_keras.config.kinds import kind_of, name_of
from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import Recipe
from rotnet_keras.errors import RotnetError, RunStopped
from rotnet_keras.host import processor
from rotnet_keras.runs import processes
from rotnet_keras.runs.events import EventWriter
from rotnet_keras.runs.folder import RunFolder, command_line
from rotnet_keras.runs.oom_advice import advice, ran_out
from rotnet_keras.training.cluster import place, scratch
from rotnet_keras.training.console import Console
from rotnet_keras.training.session import Session
from rotnet_keras.training.stopping import Stop

RECORDED_PACKAGES = ("rotnet-keras", "keras", "tensorflow", "numpy")


def _pretrain(session: Session) -> None:
    from rotnet_keras.tasks.pretrain import pretrain

    pretrain(session)


def _finetune(session: Session) -> None:
    from rotnet_keras.tasks.finetune import finetune

    finetune(session)


def _probe(session: Session) -> None:
    from rotnet_keras.tasks.probe import probe_backbone

    probe_backbone(session)


def _classification(session: Session) -> None:
    from rotnet_keras.tasks.voc.classification import transfer_classification

    transfer_classification(session)


def _detection(session: Session) -> None:
    from rotnet_keras.tasks.voc.detection import transfer_detection

    transfer_detection(session)


def _segmentation(session: Session) -> None:
    from rotnet_keras.tasks.voc.segmentation import transfer_segmentation

    transfer_segmentation(session)


def _study(session: Session) -> None:
    from rotnet_keras.tasks.study.study import run_study

    run_study(session)


# What each kind of recipe does. Imported when called: most of them load TensorFlow.
TASKS: dict[str, Callable[[Session], None]] = {
    "pretrain": _pretrain,
    "classify": _finetune,
    "probe": _probe,
    "transfer classification": _classification,
    "transfer detection": _detection,
    "transfer segmentation": _segmentation,
    "study": _study,
}


def run(folder: RunFolder, before: Callable[[Session], None] = lambda session: None) -> int:
    """Start or resume the run in a folder, in this process, to its end.

    Args:
        folder: holds at least a resolved `recipe.toml`.
        before: called in the session before the task is; may raise what the task may.

    Returns:
        The exit code: 0 finished, 130 or 143 stopped with a checkpoint, otherwise an error's.

    Raises:
        RunError: another process is running it, or a newer version of this package wrote it.
    """
    folder.require_known_format()
    recipe = load_recipe(folder.recipe)
    events = EventWriter(folder.events_file)
    stop = Stop(folder.stop_file)
    console = Console(folder.log)
    session = Session(folder, recipe, events, console, stop)
    try:
        session.record(**_process_facts())
        outcome, code, message = _work(session, before)
        if message:
            session.say(message)
        with suppress(OSError):  # A disk may be full; the run then counts as killed, and goes on as such.
            session.event("end", outcome=outcome, exit_code=code, message=message)
        return code
    finally:
        console.close()
        events.close()


def run_and_exit(folder: RunFolder, before: Callable[[Session], None] = lambda session: None) -> NoReturn:
    """The same, and the end of this process with its exit code.

    By itself a process ends at once: all is written, and threads of TensorFlow that want the interpreter while that
    goes could hold it up for ever. One of several takes leave of the others first.
    """
    alone = place(load_recipe(folder.recipe)).count == 1
    code = run(folder, before)
    sys.stdout.flush()
    sys.stderr.flush()
    if alone:
        os._exit(code)
    sys.exit(code)


def follow(recipe: Recipe) -> int:
    """Train with others as one of several processes, not the chief; the exit code. It leaves the log of a failure."""
    folder = scratch(recipe)
    code = run(folder)
    if code in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM):
        shutil.rmtree(folder.path.parent, ignore_errors=True)
    return code


def _work(session: Session, before: Callable[[Session], None]) -> tuple[str, int, str]:
    """Do what the recipe says; (outcome, exit code, message)."""
    resume_command = command_line("resume", session.folder)
    session.event("start", pid=os.getpid())
    try:
        if session.place.chief:
            session.say(f"Run {session.folder.name} in {session.folder.path}")
        if session.place.count > 1:
            session.say(f"Process {session.place.index + 1} of {session.place.count}; waiting until all are there.")
        if kind_of(session.recipe).trains:
            session.say("Starting TensorFlow; the first step takes longer, it traces the graph.")
        before(session)
        TASKS[name_of(session.recipe)](session)
    except RunStopped as stopped:
        return (
            "stopped",
            stopped.exit_code,
            f"Stopped. Go on with: {resume_command}" if session.place.chief else "Stopped.",
        )
    except RotnetError as error:
        return "failed", error.exit_code, f"Error: {error}"
    except OSError as error:
        traceback.print_exc()
        if not session.folder.path.is_dir():
            return "failed", 1, f"Error: the run folder {session.folder.path} is gone"
        return "failed", 1, f"Error: {error}. What was saved is intact; go on with: {resume_command}"
    except Exception as error:
        traceback.print_exc()
        reason = (str(error).splitlines() or [""])[0][:500]
        text = f"Error: {type(error).__name__}: {reason} (more in {session.folder.log})"
        return "failed", 1, f"{text}. Memory ran out. {advice(session.folder)}" if ran_out(text) else text
    return "finished", 0, ""


def _process_facts() -> dict[str, Any]:
    """What `run.json` says of the process that works on the run."""
    return {
        **processes.process_identity(psutil.Process()),
        "host": os.uname().nodename,
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "cpus": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
    }
