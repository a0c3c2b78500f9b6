"""Images of more than 8 bits: reading their files, and the range of their values."""
