"""The options --submit and --submit-options, and what commands do with them."""

from typing import TYPE_CHECKING, Any

import click

from rotnet_keras.cli.options import echo, option

if TYPE_CHECKING:
    from rotnet_keras.config.submit_options import Cluster, SubmitOptions
    from rotnet_keras.runs.folder import RunFolder

submit_option = click.option(
    "--submit",
    type=click.Choice(["slurm", "local"]),
    help="Submit it as a job: slurm, or local, for processes of this machine to try it out.",
)
submit_options_option = option(
    "--submit-options",
    metavar="OPTIONS",
    help="With --submit: partition=gpu,gpus=1,time=4:00:00, or a .toml file; see the guide On a cluster.",
)


def require_submission(submit: "Cluster | None", options: str | None) -> "SubmitOptions":
    """The options of a submission, checked before anything is made.

    Raises:
        RecipeError: they are invalid, or there are some and nothing is submitted.
        RotnetError: jobs cannot be submitted from here.
    """
    from rotnet_keras.config.submit_options import parse_submit_options
    from rotnet_keras.errors import RecipeError

    if not submit:
        if options:
            raise RecipeError("--submit-options needs --submit slurm")
        return parse_submit_options(None)
    from rotnet_keras.runs.cluster.submission import require_submitit

    parsed = parse_submit_options(options)
    parsed.minutes()
    require_submitit(submit)
    return parsed


def submission_facts(submit: "Cluster", options: "SubmitOptions") -> dict[str, Any]:
    """The facts of a study whose runs become jobs, which only this user's own later commands believe."""
    from rotnet_keras.runs.queue import sign

    submission = {"cluster": submit, "options": options.model_dump(exclude_none=True)}
    return {"submission": submission, "submission_by": sign(submission)}


def submit_and_tell(folder: "RunFolder", submit: "Cluster", options: "SubmitOptions", new: bool = False) -> None:
    """Submit a run, and say what its job is and how to see it; a new one that is refused leaves no folder."""
    from rotnet_keras.errors import RotnetError
    from rotnet_keras.runs.cluster.submission import submit_run
    from rotnet_keras.runs.control import remove_run
    from rotnet_keras.runs.next_steps import command_line

    try:
        number = submit_run(folder, submit, options)
    except RotnetError:
        if new:
            remove_run(folder)
        raise
    kind = "Slurm" if submit == "slurm" else "local"
    echo(f"Submitted {folder.name} as {kind} job {number}. See how it is: {command_line('status', folder)}")
