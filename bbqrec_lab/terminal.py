"""Lines for people: notices on standard error, results on standard output. No text of the data commands a terminal."""

import sys

from bbqrec_lab.escaping import printable


def say(text: object, end: str = "\n") -> None:
    """Print progress or a notice on standard error, at once."""
    print(printable(text), end=end, file=sys.stderr, flush=True)


def tell(text: object) -> None:
    """Print a result on standard output."""
    print(printable(text))
