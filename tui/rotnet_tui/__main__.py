"""`python -m rotnet_tui`, which the web server starts."""

from rotnet_tui.cli import main

main()
