"""`python -m rotnet_tui`, which the browser's server starts."""

from rotnet_tui.cli import main

main()
