"""The terminal UI of rotnet-keras: a viewer of run folders and a remote control for runs."""
