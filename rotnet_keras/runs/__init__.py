"""The run folder: its files, its state, starting and queueing runs, and the model zoo."""
