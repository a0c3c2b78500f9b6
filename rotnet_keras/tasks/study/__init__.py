"""Studies: many runs, and the tables and figures that they fill."""
