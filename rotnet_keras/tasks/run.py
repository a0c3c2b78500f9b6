"""Runs the recipe in a run folder: every run, new or resumed, passes through `run`."""

import importlib.metadata
import os
import platform
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import psutil

from rotnet_keras.config.kinds import kind_name, kind_of
from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import ProbeRecipe, Recipe
from rotnet_keras.config.sections import Train
from rotnet_keras.errors import DataError, RotnetError, RunError, RunStopped
from rotnet_keras.files import digest, remove_unfinished
from rotnet_keras.host import processor
from rotnet_keras.runs import processes
from rotnet_keras.runs.cluster.jobs import JOB_FILE
from rotnet_keras.runs.events import Event, EventWriter
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.next_steps import command_line
from rotnet_keras.runs.status import is_out_of_memory, smaller_batch_advice
from rotnet_keras.training.cluster import training_process, worker_folder
from rotnet_keras.training.console import Console
from rotnet_keras.training.session import Session
from rotnet_keras.training.stopping import Stop
from rotnet_keras.training.system_events import SystemEvents
from rotnet_keras.training.tracking import Tracking

# In what TensorFlow says about an operation that has no kernel with a fixed order of sums on a GPU.
NO_FIXED_ORDER = "deterministic"
# Packages whose versions are written to run.json.
RECORDED_PACKAGES = ("rotnet-keras", "keras", "tensorflow", "numpy")
# The key in run.json of the model file that a run starts from.
MODEL_FILE = "model_file"


# One function for each kind of recipe. It imports its task when it is called, because most tasks load TensorFlow.


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


# The kind of a recipe, with its task for transfers, and the function that runs it.
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
    """Run a run folder to its end in this process, from the start or from its last checkpoint.

    Args:
        folder: a run folder with at least a resolved `recipe.toml`.
        before: called with the session before the task starts. It may raise whatever a task may raise.

    Returns:
        The exit code: 0 if the run finished, 130 or 143 if it stopped with a checkpoint, otherwise the error's.

    Raises:
        RunError: another process runs this folder, a newer version of this package wrote it, it holds a link, or its
            first files cannot be written.
    """
    folder.require_known_format()
    folder.require_own_files()
    recipe = load_recipe(folder.recipe)
    events = EventWriter(folder.events_file)
    # No other process of a run writes here now. The machine that submitted it may note its job.
    remove_unfinished(folder.path, besides=(JOB_FILE,))
    stop = Stop(folder.stop_file)
    session = _begin(folder, recipe, events, stop)
    console = session.console
    measured = SystemEvents(partial(session.event, "system"), folder.path, _count(session.earlier, "system"))
    try:
        if session.process.chief:
            measured.start()
        tracking = Tracking(session, _trackers(session))
        outcome, code, message = _run_task(session, before)
        measured.stop()
        if message:
            session.say(message)
        tracking.no_more_events()
        # The disk may be full. Without an end event the run counts as killed, and can be resumed.
        with suppress(OSError):
            session.event("end", outcome=outcome, exit_code=code, message=message)
        tracking.wait()
        return code
    except BaseException:
        console.give_back()
        raise
    finally:
        measured.stop()
        console.close()
        events.close()


def _trackers(session: Session) -> list[str]:
    """Return the names of the trackers that this process mirrors the run to."""
    train = getattr(session.recipe, "train", None)
    return list(train.track) if isinstance(train, Train) and session.process.chief else []


def _count(events: list[Event], kind: str) -> int:
    return sum(event["kind"] == kind for event in events)


def _begin(folder: RunFolder, recipe: Recipe, events: EventWriter, stop: Stop) -> Session:
    """Begin a session: record this process in `run.json`, then let what is printed go to the log.

    Raises:
        RunError: a file cannot be written, for example on a full disk; it is said where the command was typed.
    """
    console = None
    try:
        console = Console(folder.log)
        session = Session(folder, recipe, events, console, stop)
        session.record(**_process_facts())
        session.event("start", pid=os.getpid())
        return session
    except OSError as error:
        if console:
            console.give_back()
        events.close()
        raise RunError(
            f"{folder.name} cannot be started, because its folder cannot be written: {error}. When the cause is "
            f"removed, start it with: {command_line('resume', folder)}"
        ) from None


def run_and_exit(folder: RunFolder, before: Callable[[Session], None] = lambda session: None) -> NoReturn:
    """Run a run folder to its end, then end this process with the exit code.

    A single process ends with `os._exit`: everything is written, and TensorFlow threads that wait for the
    interpreter during a normal exit can block it for ever. One of several processes exits normally, so that it
    disconnects from the others first.
    """
    alone = training_process(load_recipe(folder.recipe)).count == 1
    code = run(folder, before)
    sys.stdout.flush()
    sys.stderr.flush()
    if alone:
        os._exit(code)
    sys.exit(code)


def follow(recipe: Recipe) -> int:
    """Train as one of several processes that is not the chief.

    Its scratch folder is deleted at the end, unless the run failed: then its log stays.

    Returns:
        The exit code, as of `run`.
    """
    folder = worker_folder(recipe)
    code = run(folder)
    if code in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM):
        shutil.rmtree(folder.path.parent, ignore_errors=True)
    return code


def _run_task(session: Session, before: Callable[[Session], None]) -> tuple[str, int, str]:
    """Run the task of the recipe; return the outcome, the exit code and the message of the end event."""
    resume_command = command_line("resume", session.folder)
    try:
        if session.process.chief:
            session.say(f"Run {session.folder.name} in {session.folder.path}")
        if session.process.count > 1:
            session.say(f"Process {session.process.rank + 1} of {session.process.count}; waiting for the others.")
        if kind_of(session.recipe).trains:
            session.say("Starting TensorFlow. The first step takes longer, because it traces the graph.")
        before(session)
        _pin_model_file(session)
        TASKS[kind_name(session.recipe)](session)
    except RunStopped as stopped:
        message = f"Stopped. Resume with: {resume_command}" if session.process.chief else "Stopped."
        return "stopped", stopped.exit_code, message
    except RotnetError as error:
        return "failed", error.exit_code, f"Error: {error}"
    except OSError as error:
        traceback.print_exc()
        if not session.folder.path.is_dir():
            return "failed", 1, f"Error: the run folder {session.folder.path} no longer exists"
        return "failed", 1, f"Error: {error}. Saved files are intact. Resume with: {resume_command}"
    except Exception as error:
        traceback.print_exc()
        reason = (str(error).splitlines() or [""])[0][:500]
        text = f"Error: {type(error).__name__}: {reason} (more in {session.folder.log})"
        if is_out_of_memory(text):
            text = f"{text}. The run is out of memory. {smaller_batch_advice(session.folder)}"
        if NO_FIXED_ORDER in text.lower():
            text = f"{text}. Try a new run with devices.deterministic=false, which does not fix the order of sums"
        return "failed", 1, text
    return "finished", 0, ""


def _pin_model_file(session: Session) -> None:
    """Record the content of the model file that a run starts from, and make sure that a resumed run finds the same.

    Raises:
        DataError: the file is missing, or has changed since the run began.
    """
    recipe = session.recipe
    source = recipe.backbone if isinstance(recipe, ProbeRecipe) else getattr(recipe, "pretrained", None)
    if source is None:
        return
    file, before = Path(str(source.file)), session.folder.facts().get(MODEL_FILE, {})
    try:
        content = digest(file)
    except OSError as error:
        raise DataError(f"the run starts from {file}, which cannot be read: {error.strerror}") from None
    if before.get("digest", content) != content:
        raise DataError(f"{file} has changed since this run began. Put the old file back, or start a new run")
    session.record(**{MODEL_FILE: {"file": str(file), "digest": content}})


def _process_facts() -> dict[str, Any]:
    """Return the facts about this process that are written to `run.json`."""
    return {
        **processes.process_identity(psutil.Process()),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "cpus": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
    }
