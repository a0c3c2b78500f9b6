"""Text from elsewhere, such as file names and classes, as a terminal may be shown it."""


def printable(text: str) -> str:
    """The text without control characters, which could take over the terminal, and without what is no character."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
