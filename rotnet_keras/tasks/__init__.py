"""The tasks: a module for each kind of recipe, and `run`, which runs a run folder."""
