from rotnet_tui.cli import main

main()
