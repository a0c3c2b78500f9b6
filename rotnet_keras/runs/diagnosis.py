"""Why a run ended as it did, in a paragraph with the commands that mend it: rules over its events, log and recipe."""

import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rotnet_keras.errors import RunError
from rotnet_keras.files import open_file
from rotnet_keras.runs.event_fields import event_problem
from rotnet_keras.runs.events import SIDE_KIND, Event, lines_from_end, parse_event
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.machine_load import gigabytes
from rotnet_keras.runs.next_steps import command_line, run_argument, runs_dir_option
from rotnet_keras.runs.processes import Process
from rotnet_keras.runs.status import explanation, is_out_of_memory
from rotnet_keras.runs.task_labels import task_of
from rotnet_keras.runs.verdict import DIVERGED, verdict
from rotnet_keras.text import duration

# How much of the log's end is searched.
LOG_BYTES = 1 << 17
# A machine is out of memory from this share of its memory on.
FULL_SHARE = 0.92
# Less free space is a full disk.
FULL_DISK_BYTES = 200 << 20
# By how much the gradient has to have grown to be mentioned.
GROWN = 5.0
# A learning rate that is proposed is not larger.
LARGE_RATE = 0.1
NO_SPACE = ("No space left on device", "Disk quota exceeded", "Errno 28", "Errno 122")
DRIVER = ("CUDA_ERROR", "cuDNN", "CUDNN_STATUS", "libcudart", "NVML", "Failed to initialize")


@dataclass(frozen=True)
class Diagnosis:
    """The answer.

    Attributes:
        cause: in two or three words.
        text: a paragraph for people.
        commands: that mend it, the best first; to be typed as they are.
    """

    cause: str
    text: str
    commands: Sequence[str] = field(default=())


class _Evidence:
    """What is known of a run; each part is read when a rule asks for it."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.process = run.process()
        self.tail = [e for e in run.last_events() if event_problem(e) is None]
        try:
            self.state = run.state(self.process, self.tail)
        except RunError:
            self.state = "unknown"
        last = self.tail[-1] if self.tail else {}
        self.end: Event = last if last.get("kind") == "end" else {}
        self.message = str(self.end.get("message", ""))
        self.steps = [e for e in self.tail if e["kind"] == "step"]
        self.step = max((e["step"] for e in self.steps), default=0)
        self.saved = max((e["step"] for e in self.tail if e["kind"] == "checkpoint"), default=None)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        return self.run.recipe_values()

    @cached_property
    def log(self) -> str:
        """The end of the log."""
        try:
            with open_file(self.run.log, self.run.path) as file:
                file.seek(max(0, file.seek(0, 2) - LOG_BYTES))
                return file.read(LOG_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    @cached_property
    def system(self) -> Event:
        """The last figures of the machine."""
        for number, line in enumerate(lines_from_end(self.run.events_file)):
            event = parse_event(line)
            if event is not None and event["kind"] == SIDE_KIND and event_problem(event) is None:
                return event
            if number > 20_000:
                break
        return {}

    def says(self, signs: Sequence[str]) -> bool:
        """Whether the message, or the log after the last start, has one of some words."""
        return any(sign in self.message or sign in self.log.rpartition("Starting TensorFlow")[2] for sign in signs)

    def again(self, *changes: str) -> str:
        """The command of a new run of the same recipe with some changes."""
        words = shlex.join([str(self.run.recipe), *changes])
        return f"rotnet-keras run {words}{runs_dir_option(self.run.path.parent)}"

    @property
    def resume(self) -> str:
        return command_line("resume", self.run)

    @property
    def lost(self) -> str:
        """What a resumed run begins with."""
        if self.saved is None:
            return "It has no checkpoint yet, so it begins anew."
        again = f", and repeats {self.step - self.saved:,} steps" if self.step > self.saved else ""
        return f"It goes on from its checkpoint at step {self.saved:,}{again}."


def diagnose(run: RunFolder) -> Diagnosis:
    """Say why a run has ended, or how it is doing if it has not."""
    known = _Evidence(run)
    if known.state in ("failed", "killed"):
        for rule in RULES:
            if found := rule(known):
                return found
    return _other(known)


def _diverged(known: _Evidence) -> Diagnosis | None:
    if not any(sign in known.message for sign in DIVERGED):
        return None
    optimizer = known.recipe.get("optimizer", {})
    rate = optimizer.get("learning_rate", 0.1)
    finite = [e for e in known.steps if e["loss"] is not None]
    text = "The loss or a weight became infinite or NaN, which no later step can mend: the steps were too large."
    if finite:
        last = finite[-1]
        text += f" The last known loss was {last['loss']:.3g} in step {last['step']:,}, at learning rate "
        text += f"{last['learning_rate']:.3g}."
    norms = [e["gradient_norm"] for e in finite if e.get("gradient_norm")]
    if len(norms) > 1 and norms[-1] > GROWN * min(norms):
        text += f" The norm of the gradient had grown from {min(norms):.3g} to {norms[-1]:.3g} by then."
    text += " Train with a smaller learning rate, or cut large gradients."
    smaller = known.again(f"optimizer.learning_rate={min(float(rate) / 3, LARGE_RATE):.2g}")
    return Diagnosis("diverged", text, (smaller, known.again("optimizer.clip=1.0")))


def _out_of_memory(known: _Evidence) -> Diagnosis | None:
    """An error of TensorFlow or Python, or a process that the system has killed because memory was full."""
    batch, inputs = known.recipe.get("train", {}).get("batch"), known.run.facts().get("inputs_per_step")
    full = _full_machine(known)
    if not (is_out_of_memory(known.message) or (known.state == "killed" and full)):
        return None
    text = "Memory ran out."
    if known.state == "killed":
        text += f" {full} When memory is full, the system ends the largest process, without a word to it."
    elif "GPU" in known.message or "gpu" in known.message or known.system.get("gpus"):
        said = known.message.removeprefix("Error: ").split(" (more in")[0]
        text += f" It was probably the GPU's; the error was: {said}."
    if isinstance(batch, int) and batch > 1:
        text += f" A step computes {inputs or batch} inputs at once, of {batch} images. train.accumulate=2 computes the"
        text += " same batch in two parts, with half the memory; train.batch halves it."
        changes = ("train.accumulate=2", f"train.batch={batch // 2}")
        return Diagnosis("out of memory", text, tuple(known.again(change) for change in changes))
    return Diagnosis("out of memory", f"{text} Close other programs, then go on. {known.lost}", (known.resume,))


def _full_machine(known: _Evidence) -> str:
    """What the run last knew of a full memory; empty if it was not full."""
    used, total, own = (known.system.get(key) for key in ("machine_memory", "machine_total", "memory"))
    if not used or not total or used < FULL_SHARE * total:
        return ""
    part = f"; the run had {gigabytes(own)}" if own else ""
    return f"Its last measurement found {gigabytes(used)} of {gigabytes(total)} in use{part}."


def _disk_full(known: _Evidence) -> Diagnosis | None:
    recorded = known.system.get("disk_free")
    was_full = known.state == "killed" and recorded is not None and recorded < FULL_DISK_BYTES
    if not known.says(NO_SPACE) and not was_full:
        return None
    try:
        free = f" Now {gigabytes(shutil.disk_usage(known.run.path).free)} are free."
    except OSError:
        free = ""
    text = (
        f"The disk of {known.run.path} was full, so nothing more could be written. What was saved before is intact."
        f"{free} Free some space, for example by deleting runs that are no longer needed, and go on. {known.lost}"
    )
    return Diagnosis(
        "disk full", text, (known.resume, f"rotnet-keras delete RUN{runs_dir_option(known.run.path.parent)}")
    )


def _data(known: _Evidence) -> Diagnosis | None:
    if known.end.get("exit_code") != 3:
        return None
    reason = known.message.removeprefix("Error: ").rstrip(".")
    if "changed since" in reason:
        text = f"The data are no longer those with which the run began: {reason}."
        return Diagnosis("data changed", text, (known.again(),))
    name = known.recipe.get("data", {}).get("name", "")
    text = (
        f"What the recipe reads is missing or unreadable: {reason}. The recipe names {name!r}; if it moved, say where."
    )
    return Diagnosis("data missing", text, (known.again("data.name=PATH"), known.resume))


def _driver(known: _Evidence) -> Diagnosis | None:
    if not any(sign in known.message for sign in DRIVER):
        return None
    line = known.message.removeprefix("Error: ")
    text = f"The GPU or its driver failed: {line.strip()[:300]} Check the installation, then go on. {known.lost}"
    return Diagnosis("GPU failed", text, ("rotnet-keras doctor", known.resume))


def _killed(known: _Evidence) -> Diagnosis | None:
    if known.state != "killed":
        return None
    import psutil

    last = known.tail[-1]["time"] if known.tail else None
    if last is None:
        text = "Its process ended before its first event. The log may say why."
        return Diagnosis("killed", text, (command_line("logs", known.run), known.resume))
    text = f"Its process ended without a word, {duration(max(0.0, time.time() - last))} ago."
    here = known.process is not Process.ELSEWHERE
    if here and psutil.boot_time() > last:
        cause, text = "machine restarted", f"{text} The machine has been started anew since then."
    else:
        cause = "killed"
        memory = known.system.get("memory")
        used = f" It last had {gigabytes(memory)} of memory, and the machine was not full." if memory else ""
        text += f" Somebody killed it, or the system did.{used}"
    return Diagnosis(cause, f"{text} {known.lost}", (known.resume,))


def _failed(known: _Evidence) -> Diagnosis | None:
    """Anything else that ended with an error: what it said last."""
    reason = known.message.removeprefix("Error: ").strip() or "it left no message"
    codes = {2: "A mistake in the recipe or the command", 1: "An error"}
    text = f"{codes.get(known.end.get('exit_code', 1), 'An error')} ended it: {reason.rstrip('.')}."
    if "Traceback" in known.log:
        text += " The log has the traceback."
    return Diagnosis("error", f"{text} {known.lost}", (command_line("logs", known.run), known.resume))


RULES: tuple[Callable[[_Evidence], Diagnosis | None], ...] = (
    *(_diverged, _out_of_memory, _disk_full, _data, _driver, _killed, _failed),
)


def _other(known: _Evidence) -> Diagnosis:
    """A run that has not failed: how it is doing."""
    run, state = known.run, known.state
    if state == "stopped":
        return Diagnosis("stopped", f"It was stopped, and nothing is lost. {known.lost}", (known.resume,))
    said = explanation(run, state, known.tail)
    if said and state not in ("finished",):
        return Diagnosis(state, said, (command_line("logs", run),) if state == "stalled" else ())
    events = [e for e in run.thinned_events() if event_problem(e) is None]
    judged = verdict(events, task_of(run).num_classes)
    text = f"It has not failed: it is {state}. {judged.text}"
    rate = known.recipe.get("optimizer", {}).get("learning_rate")
    if judged.level == "chance" and isinstance(rate, (int, float)):
        text += " Try another learning rate, and look at the images that the network sees."
        return Diagnosis(
            "at chance", text, tuple(known.again(f"optimizer.learning_rate={rate * f:.2g}") for f in (0.3, 3))
        )
    if judged.level == "overfitting":
        text += " More images, stronger augmentation or fewer epochs help."
    return Diagnosis(judged.level, text)


def as_lines(run: RunFolder, found: Diagnosis) -> str:
    """Return a diagnosis as text for a terminal."""
    commands = "".join(f"\n  {command}" for command in found.commands)
    return f"{run_argument(run)}: {found.cause}\n{found.text}" + (f"\nWhat mends it:{commands}" if commands else "")
