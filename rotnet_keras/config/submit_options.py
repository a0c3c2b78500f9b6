"""What a job of a cluster asks for: its partition, devices, memory and time."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from rotnet_keras.config.finder import did_you_mean
from rotnet_keras.config.sections import Section
from rotnet_keras.errors import RecipeError
from rotnet_keras.files import read_toml

# How a cluster is called that jobs are submitted to.
Cluster = Literal["slurm", "local"]
# Names become lines of a batch script.
Word = Annotated[str, StringConstraints(pattern=r"^[\w.,:=+\-\[\]&|*()]{1,200}$")]
# As Slurm reads it: minutes, M:SS, H:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS.
TIME = re.compile(r"(\d{1,3}-)?\d{1,5}(:\d{1,2}){0,2}")


class SubmitOptions(Section):
    """What a job asks for; what is left out is the cluster's default."""

    partition: Word | None = Field(None, description="Partition, or several joined by commas.")
    gpus: int | None = Field(None, ge=0, le=64, description="GPUs of each machine.")
    cpus: int | None = Field(None, ge=1, le=1024, description="CPU cores of each task.")
    memory: float | None = Field(None, gt=0, le=100_000, description="Memory of each machine, in GB.")
    time: str = Field("24:00:00", description="Time limit: minutes, H:MM:SS or D-HH:MM:SS.")
    grace: int = Field(
        120, ge=10, le=3600, description="Seconds before the time limit at which a run saves a checkpoint and stops."
    )
    nodes: int = Field(1, ge=1, le=1024, description="Machines.")
    tasks: int = Field(1, ge=1, le=64, description="Processes on each machine, which train together.")
    account: Word | None = Field(None, description="Account that is charged.")
    qos: Word | None = Field(None, description="Quality of service.")
    constraint: Word | None = Field(None, description="Features that machines need.")
    gres: Word | None = Field(None, description="Generic resources, such as gpu:a100:2.")
    exclude: Word | None = Field(None, description="Machines to leave out.")
    reservation: Word | None = Field(None, description="Reservation to use.")
    setup: list[str] = Field([], description="Shell commands to run first, such as 'module load cuda'; in a file only.")

    def minutes(self) -> int:
        """Return the time limit in minutes.

        Raises:
            RecipeError: it is not written as a time.
        """
        if not TIME.fullmatch(self.time):
            raise RecipeError(
                f"--submit-options: time: expected minutes, H:MM:SS or D-HH:MM:SS, such as 4:00:00, got {self.time!r}"
            )
        days, dash, rest = self.time.rpartition("-")
        parts = [int(part) for part in rest.split(":")]
        if dash or len(parts) == 3:
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        else:
            hours, minutes, seconds = (0, *parts, 0)[:3]
        return max(1, int(days or 0) * 1440 + hours * 60 + minutes + (seconds > 0))


def parse_submit_options(text: str | None) -> SubmitOptions:
    """Return the options of `--submit-options`: a TOML file, or "partition=gpu,gpus=1,time=4:00:00".

    Raises:
        RecipeError: an option is unknown or has a wrong value, or the file cannot be read.
    """
    if not text:
        return SubmitOptions()
    values: dict[str, Any] = {}
    if text.endswith(".toml"):
        try:
            values = read_toml(Path(text))
        except (OSError, ValueError) as error:
            raise RecipeError(f"--submit-options: {text} cannot be read: {error}") from None
    else:
        # A comma within a value, as in partition=a,b, is followed by no key.
        for part in re.split(r",(?=\w+=)", text):
            key, equals, value = part.partition("=")
            if not equals:
                raise RecipeError(
                    f"--submit-options: expected KEY=VALUE,KEY=VALUE or a .toml file, got {text!r}; keys are "
                    f"{', '.join(SubmitOptions.model_fields)}"
                )
            values[key.strip()] = _typed(value.strip())
        if "setup" in values:
            raise RecipeError("--submit-options: setup is a list of commands: write the options into a .toml file")
    return checked_submit_options(values)


def checked_submit_options(values: dict[str, Any]) -> SubmitOptions:
    """Check options that were read.

    Raises:
        RecipeError: an option is unknown or has a wrong value; all of them are named.
    """
    if isinstance(values.get("time"), int):
        values = {**values, "time": str(values["time"])}
    try:
        options = SubmitOptions.model_validate(values)
    except ValidationError as error:
        complaints = []
        for each in error.errors():
            key = str(each["loc"][0]) if each["loc"] else ""
            if each["type"] == "extra_forbidden":
                complaints.append(f"no option {key!r}{did_you_mean(key, SubmitOptions.model_fields)}")
            else:
                complaints.append(f"{key}: {each['msg']}, got {values.get(key)!r}")
        raise RecipeError(f"--submit-options: {'; '.join(complaints)}") from None
    if any("\n" in command or "\r" in command for command in options.setup):
        raise RecipeError("--submit-options: setup: expected one command in each entry, without line breaks")
    if 60 * options.minutes() <= options.grace:
        raise RecipeError(
            f"--submit-options: grace: expected fewer seconds than the time limit of {options.time} has, got "
            f"{options.grace}"
        )
    return options


def _typed(value: str) -> Any:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
