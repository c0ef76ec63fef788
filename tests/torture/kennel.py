"""A process with all imports done that forks a child for every fit, so that a hundred kills take minutes and not hours.

It reads lines `ROOT OPERATION` on standard input. The child fits one variant into the store ROOT, and kills itself with
SIGKILL before its file operation number OPERATION (0: never). It answers with two lines: the process number of the
child, then its exit status (-9 if it killed itself) and how many operations it did.

The operations are those that change what is on the disk: fsync, rename, delete, new folders, and whole files that a
library writes, which a kill leaves half written.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
from bbqrec_lab.threads import use_one_thread  # noqa: E402

use_one_thread()
import numpy as np  # noqa: E402
import polars as pl  # noqa: E402 - imported, but not used before a fork, because its threads do not survive one
import torch  # noqa: E402
from tiny import planted_data, run_config  # noqa: E402

from bbqrec_core import EvaluationConfig  # noqa: E402
from bbqrec_lab import cli  # noqa: E402
from bbqrec_lab.experiments import runs  # noqa: E402
from bbqrec_lab.store import Store  # noqa: E402

EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=16)
CONFIG = run_config(0, EVALUATION, r_epochs=2, r_patience=9, r_score_reweight=True, r_score_steps=3, epochs=2)
OPERATIONS = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")


class Count:
    """Counts file operations, and kills this process before one of them. Args: last: its number; 0 for none."""

    def __init__(self, last: int) -> None:
        self.last, self.done = last, 0

    def step(self) -> bool:
        """Count an operation; whether it is the last one."""
        self.done += 1
        return self.done == self.last

    def before(self, inner: Callable[..., object]) -> Callable[..., object]:
        """An operation of the system that is not done if it is the last one."""

        def operation(*arguments: object, **named: object) -> object:
            if self.step():
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(*arguments, **named)

        return operation

    def half(self, inner: Callable[..., object], place: int) -> Callable[..., object]:
        """A function that writes a file, of which half is written if it is the last one."""

        def operation(*arguments: object, **named: object) -> object:
            found = inner(*arguments, **named)
            if self.step():
                file = arguments[place]
                target = file.name if hasattr(file, "name") and not isinstance(file, Path) else file
                if hasattr(file, "flush"):
                    file.flush()
                os.truncate(target, os.stat(target).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return operation


def fit(root: Path, last: int) -> int:
    """The number of file operations of one fit; errors become the line that a command would print."""
    with tempfile.TemporaryDirectory() as scratch:
        data = planted_data(Path(scratch))
        count = Count(last)
        for name in OPERATIONS:
            setattr(os, name, count.before(getattr(os, name)))
        np.savez = count.half(np.savez, 0)
        pl.DataFrame.write_parquet = count.half(pl.DataFrame.write_parquet, 1)
        pl.DataFrame.write_csv = count.half(pl.DataFrame.write_csv, 1)
        runs.run_variant(data, "bbqrec", CONFIG, Store(root))
        return count.done


def main() -> None:
    """Answer requests until the end of standard input."""
    print("ready", flush=True)
    torch.manual_seed(0)
    for line in sys.stdin:
        *root, last = line.split(" ")
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            try:
                os.write(write, str(fit(Path(" ".join(root)), int(last))).encode())
                os._exit(0)
            except BaseException as error:
                os._exit(cli._one_line(error))
        print(f"pid {child}", flush=True)
        os.close(write)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with os.fdopen(read) as told:
            print(f"{status} {told.read() or 0}", flush=True)


if __name__ == "__main__":
    main()
