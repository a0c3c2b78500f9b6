"""Widgets that read nothing."""
