"""A trained network on image files."""
