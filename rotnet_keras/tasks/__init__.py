"""What each kind of recipe does."""
