"""What is read, without a widget."""
