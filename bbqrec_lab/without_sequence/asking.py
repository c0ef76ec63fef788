"""Ask a study: its result, or the reason why these data cannot answer, as a sentence for the reader."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

LIBRARIES = ("implicit", "bm25s", "sentencepiece")  # of the extra `tasks`


class UnanswerableError(ValueError):
    """These data cannot answer a question; the message is a sentence for the reader."""


class Asked(NamedTuple):
    """The result of a study, or None and the reason."""

    result: object
    reason: str = ""


def ask(study: Callable[..., object], *given: object) -> Asked:
    """Call a study; data that cannot answer it give a reason instead of an error.

    Raises: ImportError that names the extra to install, if a library is missing.
    """
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise ImportError(f"this needs {', '.join(missing)}: pip install 'bbqrec[tasks]'")
    try:
        return Asked(study(*given))
    except UnanswerableError as error:
        return Asked(None, str(error))
