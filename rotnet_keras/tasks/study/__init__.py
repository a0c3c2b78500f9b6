"""Studies: many runs whose results fill tables and figures."""
