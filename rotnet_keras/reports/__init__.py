"""Reports: from the events of runs to tables, figures and pages."""
