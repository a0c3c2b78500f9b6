"""From events to tables, figures and pages."""
