"""The entry point `rotnet-keras`: the list of commands, and how errors become messages and exit codes.

The module of a command is imported when the command is called, and what it needs even later: help is instant.
"""

import importlib
import os
import sys
from collections.abc import Sequence

import click

from rotnet_keras.cli.options import version_option
from rotnet_keras.errors import RotnetError
from rotnet_keras.text import printable

# Group, then command: the module of `rotnet_keras.cli` that holds it, and the first line of its help.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Train": {
        "run": ("recipes", "Run a recipe and write a run folder."),
        "recipes": ("recipes", "List the recipes that ship with the package."),
        "show": ("recipes", "Print a recipe with every default filled in."),
        "check": ("recipes", "Check recipes for mistakes, without their data."),
        "plan": ("recipes", "Estimate how long a recipe takes and what it needs."),
        "schema": ("recipes", "Print the JSON schema of recipes."),
    },
    "Runs": {
        "runs": ("runs", "List the runs with their state and accuracy."),
        "status": ("runs", "Show the state, progress and results of a run."),
        "why": ("runs", "Say why a run failed, and which command mends it."),
        "logs": ("runs", "Print the log of a run."),
        "compare": ("runs", "Compare the results and recipes of runs."),
        "report": ("runs", "Write report.html and report.md of a run."),
        "tag": ("runs", "Add tags to a run, remove or print them."),
        "note": ("runs", "Write a note on a run, or print it."),
        "collect": ("runs", "Collect tables and figures of finished studies."),
        "track": ("sharing", "Send a run to MLflow or Weights & Biases."),
        "resume": ("control", "Continue a run from its last checkpoint."),
        "stop": ("control", "Stop a run after its current step, with a checkpoint."),
        "kill": ("control", "Kill a run at once, without a checkpoint."),
        "delete": ("control", "Delete a run folder with everything in it."),
        "queue": ("queue", "Queue runs, to be started one at a time on each GPU."),
    },
    "Your images": {
        "init": ("init", "Inspect your images and write a recipe for them."),
        "upright": ("orientation", "Find images that are not upright, and rotate them."),
        "measure-upright": ("orientation", "Measure how often `upright` is correct on your images."),
        "anomalies": ("orientation", "Rank images by how unusual they are."),
        "probe": ("features", "Test with a few labels whether pretraining helped."),
        "embed": ("features", "Write the features of images to a file."),
        "alike": ("features", "Find the images that look most like given ones."),
        "plot": ("features", "Plot features in two dimensions, by PCA and t-SNE."),
        "duplicates": ("labelling", "Find images that are the same but for small changes."),
        "select": ("labelling", "Select the images to label next."),
        "predict": ("labelling", "Predict the classes of images with a trained classifier."),
    },
    "Models": {
        "backbones": ("models", "List the backbones, or the layers of one."),
        "weights": ("models", "List, describe or copy pretrained models."),
        "measure-weights": ("models", "Measure a pretrained model again, and check its card."),
        "export": ("models", "Export a model to SavedModel, ONNX or LiteRT."),
        "convert": ("models", "Convert a checkpoint of the authors' PyTorch code."),
        "rescale": ("models", "Rescale a backbone so that all layers learn equally fast."),
        "publish": ("sharing", "Write a model as Hugging Face's hub expects it."),
    },
    "This machine": {
        "doctor": ("machine", "Check the installation and show what a run would use."),
        "bench": ("machine", "Measure how fast this machine trains and reads images."),
    },
}
COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}
COMPLETION = (
    "To let bash complete commands, add this line to ~/.bashrc:",
    '  eval "$(_ROTNET_KERAS_COMPLETE=bash_source rotnet-keras)"',
    "In zsh it is zsh_source and ~/.zshrc; in fish, fish_source.",
)


class CommandLine(click.Group):
    """The commands in their groups, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, group by group."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"rotnet_keras.cli.{COMMANDS[cmd_name][0]}")
        found: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments begin with, or say which one may be meant."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from rotnet_keras.config.finder import did_you_mean

            ctx.fail(f"No such command {args[0]!r}{did_you_mean(args[0], COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group, with all texts in one column."""
        width = max(map(len, COMMANDS))
        for group, commands in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in commands.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write how the shell learns to complete the commands."""
        formatter.write_paragraph()
        formatter.write("".join(f"{line}\n" for line in COMPLETION))

    def invoke(self, ctx: click.Context) -> object:
        """Call the command; Ctrl-C ends it with the exit code that shells give to this signal."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(cls=CommandLine, name="rotnet-keras")
@version_option
def app() -> None:
    """Learn image features without labels, by predicting rotations (RotNet).

    `rotnet-keras COMMAND --help` explains a command.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: a user's mistake ends in a message, never in a traceback.

    Args:
        arguments: the words after the program's name; those of this process by default.

    Raises:
        SystemExit: always, with the exit code.
    """
    try:
        app(arguments, prog_name="rotnet-keras")
    except RotnetError as error:
        print(printable(str(error)), file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe, `head` perhaps, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        print(printable(f"Error: {error}"), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
