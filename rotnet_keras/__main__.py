"""`python -m rotnet_keras` is `rotnet-keras`, and where it begins: Ctrl-C while it still imports ends it quietly."""

import sys


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: always, with the exit code.
    """
    try:
        # What it imports takes a third of a second.
        from rotnet_keras.cli.main import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
