"""`python -m rotnet_tui` is `rotnet-tui`, and where it begins: Ctrl-C while it still imports ends it quietly."""

import sys


def main() -> None:
    """Run `rotnet-tui`."""
    try:
        # What it imports takes a third of a second.
        from rotnet_tui.cli import main as terminal_ui

        terminal_ui()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
