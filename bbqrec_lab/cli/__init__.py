"""The `bbqrec` command, a thin layer over public functions; results go to stdout, progress goes to stderr.

Each module here has one group of commands. Slow imports are inside the commands, so help and version come at once.
"""

import errno
import signal
import sys
import traceback

from cyclopts import CycloptsError

from bbqrec_lab.cli import data, doctor, pages, recommending, serving, training  # noqa: F401 - they add their commands
from bbqrec_lab.cli.app import app
from bbqrec_lab.cli.output import accept_all_letters, let_go_of_output, open_streams
from bbqrec_lab.escaping import one_line
from bbqrec_lab.safe_path import leave_current_folder, protect_children
from bbqrec_lab.terminal import say
from bbqrec_lab.threads import use_one_thread


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns: 0 success; 1 the work failed; 2 the request, a file or the data are wrong; 130 interrupted.
    """
    asked = sys.argv[1:] if argv is None else argv
    debug, tokens = "--debug" in asked, [token for token in asked if token != "--debug"]
    open_streams()
    accept_all_letters()
    use_one_thread()
    leave_current_folder()
    protect_children()
    previous = signal.signal(signal.SIGTERM, _interrupt)  # a plain kill then stops the workers too
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return code or 0  # help and version return nothing
    except CycloptsError as error:
        return _usage_error(error)
    except KeyboardInterrupt:
        print("bbqrec: interrupted; finished results are kept, run the same command to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (for example `head`) closed the pipe
        let_go_of_output()
        return 0
    except Exception as error:  # top level: one line for the user, the traceback with --debug
        if debug:
            say(traceback.format_exc(), end="")
        let_go_of_output()
        return _one_line(error)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _usage_error(error: CycloptsError) -> int:
    """Print what is wrong with the command line, on one line."""
    command = " ".join(["bbqrec", *(error.command_chain or ())])
    print(f"{command}: {one_line(error)} (try {command} --help)", file=sys.stderr)
    return 2


def _one_line(error: Exception) -> int:
    """Print cause and remedy; return 2 if the caller can fix the error, 1 if the work failed."""
    text = one_line(error)
    if isinstance(error, ValueError):
        print(f"bbqrec: {text}", file=sys.stderr)
        return 2
    if isinstance(error, OSError):
        remedy = "check that the file exists, is readable, and the disk has space"
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            remedy = "give a folder that you may write: --out for results, BBQREC_CACHE for downloads and datasets"
        print(f"bbqrec: {text}: {remedy}", file=sys.stderr)
        return 2
    print(f"bbqrec: {type(error).__name__}: {text} (--debug prints the traceback)", file=sys.stderr)
    return 1


def __getattr__(name: str) -> object:
    """`overrides`, the parser of settings, imported on first use because its module needs torch."""
    if name == "overrides":
        from bbqrec_lab.experiments.presets import parse_overrides

        return parse_overrides
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
