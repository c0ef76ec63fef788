"""The end of a process in the middle of a training, for tests of what a second call finds and goes on with."""

import pytest


class Killed(Exception):
    """Stands for the end of the process."""


def dying(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, after: int) -> None:
    """Make a method raise at its call number `after`, counted from here."""
    calls, inner = [], getattr(owner, method)

    def call(self, *arguments, **named):
        calls.append(1)
        if len(calls) == after:
            raise Killed
        return inner(self, *arguments, **named)

    monkeypatch.setattr(owner, method, call)
