"""Text of files and data in messages: it may not control a terminal."""


def printable(text: str) -> str:
    """A text in which what would control a terminal is written as an escape, such as `\\x1b`; blanks stay."""
    return "".join(c if c.isprintable() or c.isspace() else c.encode("unicode_escape").decode() for c in text)
