"""Find the notebooks, check their parameter names, and execute each one once per state of its inputs."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bbqrec_lab.code_keys import ROOT, packages_hash
from bbqrec_lab.safe_path import VARIABLE
from bbqrec_lab.store import file_hash, key_hash, write_atomic
from bbqrec_lab.suite.process_pool import Failure, run_all

if TYPE_CHECKING:
    from traitlets.config import Config

LOOK_EVERY = 1.0  # seconds
PATIENCE = 20  # seconds for a server to stop its kernels
QUIET = "--log-level=CRITICAL"  # option of a kernel that hides what it says when it is stopped
REQUIRED = ("dataset", "preset", "seed", "out_dir", "overrides")
APART = ("09", "10")  # in `quick` and `full` they take longer than all others together, so they run when asked for


def notebook_folder() -> Path:
    """The folder of the notebooks, next to the package.

    Raises: ValueError if the package was installed without its repository.
    """
    folder = ROOT / "notebooks"
    if not folder.is_dir():
        raise ValueError(f"no notebooks at {folder}: clone the repository and install it with pip install -e .")
    return folder


def discover(folder: Path, only: tuple[str, ...] = ()) -> list[Path]:
    """The notebooks `NN_*.ipynb` in order, without the solutions, which are in a subfolder.

    Raises: ValueError if there are none, or if a number in `only` matches none.
    """
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    numbers = [path.name[:2] for path in found]
    wanted = [number.zfill(2) for number in only] or numbers
    unknown = sorted(set(wanted) - set(numbers))
    if unknown or not found:
        raise ValueError(f"no notebook {', '.join(unknown)} in {folder}: available are {', '.join(numbers) or 'none'}")
    return [path for path, number in zip(found, numbers, strict=True) if number in wanted]


def of_a_run(folder: Path, preset: str, only: tuple[str, ...] = ()) -> list[Path]:
    """The notebooks of a run: those in `only`, else all, but without `APART` if the preset is not `smoke`.

    Raises: ValueError as `discover`.
    """
    left_out = APART if not only and preset != "smoke" else ()
    return [path for path in discover(folder, only) if path.name[:2] not in left_out]


def solutions(folder: Path) -> list[Path]:
    """The notebooks with solved exercises, in order; each has the name of the notebook that it solves."""
    return sorted((folder / "solutions").glob("[0-9][0-9]_*.ipynb"))


def parameters_for(path: Path, given: dict[str, object], seeds: str) -> dict[str, object]:
    """The parameters of a notebook. The names are checked here, because papermill only warns of a misspelt one.

    Args: given: a value for each of `REQUIRED`. seeds: such as `0,1,2`, for notebooks that declare `seeds`.
    Raises: ValueError if the notebook does not declare one of `REQUIRED`.
    """
    import papermill

    declared = papermill.inspect_notebook(path)
    missing = [name for name in REQUIRED if name not in declared]
    if missing:
        there = ", ".join(declared) or "none"
        raise ValueError(f"{path.name} does not declare {', '.join(missing)}: its parameters cell has {there}")
    return given | ({"seeds": seeds} if "seeds" in declared else {})


def _cause(error: Exception) -> str:
    """The cause in one line: for a failed cell its error and cell number, else type and message."""
    name, text = getattr(error, "ename", type(error).__name__), str(getattr(error, "evalue", error)).strip()
    where = f" (cell {error.exec_count})" if hasattr(error, "exec_count") else ""
    return f"{name}: {text.splitlines()[0] if text else 'no message'}{where}"


def _widget_error(executed: dict) -> str:
    """The first error inside the output of a widget, which papermill does not detect; empty if there is none."""
    saved = executed["metadata"].get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    outputs = [out for model in saved.get("state", {}).values() for out in model["state"].get("outputs", ())]
    return next((f"{out['ename']}: {out['evalue']} (in a widget)" for out in outputs if "ename" in out), "")


def need_home() -> None:
    """Check that Jupyter has a place for the files of its kernels.

    Raises: ValueError that says what to set.
    """
    from jupyter_core.paths import jupyter_runtime_dir

    try:
        folder = Path(jupyter_runtime_dir())
        folder.mkdir(parents=True, exist_ok=True)
        Path.home()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"Jupyter needs a home folder ({error}): set HOME to a folder that you may write") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"Jupyter cannot write to {folder}: set HOME to a folder that you may write")


def own_kernel(folder: Path, *options: str) -> dict[str, str]:
    """An environment in which the kernel `python3` is this interpreter, whatever else offers that name.

    Args: folder: where the description of the kernel is written; it must stay while the environment is used. options:
        of the kernel.
    """
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", *options]
    spec = {"argv": command, "display_name": "Python 3 (bbqrec)", "language": "python"}
    write_atomic(folder / "kernels" / "python3" / "kernel.json", json.dumps(spec, indent=1))
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("JUPYTER_PATH", "")]))
    return {**os.environ, VARIABLE: "1", "JUPYTER_PATH": paths}


def until_interrupted(command: list[str], env: dict[str, str]) -> int:
    """Run a server; after an interrupt, wait until it has stopped its kernels and deleted its files.

    Returns: its exit code, 0 after an interrupt.
    """
    with subprocess.Popen(command, env=env) as server:
        try:
            while server.poll() is None:  # not `wait`: with polars loaded, Ctrl-C does not interrupt a system call
                time.sleep(LOOK_EVERY / 5)
            return server.returncode
        except KeyboardInterrupt:
            server.terminate()
            try:
                server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()
            return 0


def _this_interpreter() -> type:
    """A kernel manager whose kernel `python3` is this interpreter, whatever else offers that name.

    Its client looks for replies every second: when an output widget sends on the socket on which a reply arrives, the
    event loop can miss the reply, and a notebook would hang.
    """
    from jupyter_client.asynchronous import AsyncKernelClient
    from jupyter_client.channels import AsyncZMQSocketChannel
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import Instance, Type, default

    class Channel(AsyncZMQSocketChannel):
        async def get_msg(self, timeout: float | None = None) -> dict[str, object]:
            """The next message; raises queue.Empty after `timeout` seconds."""
            end = float("inf") if timeout is None else time.monotonic() + timeout
            while True:
                try:
                    return await super().get_msg(max(min(LOOK_EVERY, end - time.monotonic()), 0))
                except queue.Empty:
                    if time.monotonic() >= end:
                        raise

    class Client(AsyncKernelClient):
        shell_channel_class = Type(Channel)

    class ThisInterpreter(AsyncKernelManager):
        kernel_spec_manager = Instance(
            KernelSpecManager, kw={"kernel_dirs": []}
        )  # then the kernel of ipykernel is left

        @default("client_factory")
        def _our_client(self) -> type:
            return Client

    return ThisInterpreter


def _kernel_connection(folder: Path) -> "Config":
    """How to talk to the kernel: by Unix sockets in `folder`, or by encrypted TCP where the system has none.

    A TCP port is chosen before the kernel binds it, so that a kernel that starts at the same time can take it.
    """
    import zmq
    from traitlets.config import Config

    own = {"transport": "ipc", "ip": str(folder / "kernel")} if zmq.has("ipc") else {}
    return Config(KernelManager={"transport_encryption": "auto"} | own)


def execute(path: Path, target: Path, parameters: dict[str, object]) -> str:
    """Run a notebook in its own folder with this interpreter; `target` is written only if it runs to the end.

    Returns: empty on success, else the cause in one line; the unfinished notebook is `*.unfinished.ipynb`.
    """
    import papermill

    target.parent.mkdir(parents=True, exist_ok=True)
    partial_target = target.with_suffix(".unfinished.ipynb")
    options = {"kernel_name": "python3", "cwd": str(path.parent), "progress_bar": sys.stderr.isatty()}
    options["kernel_manager_class"] = _this_interpreter()
    options["extra_arguments"] = [QUIET]
    try:
        with tempfile.TemporaryDirectory() as sockets:
            options["config"] = _kernel_connection(Path(sockets))
            # papermill puts parameters in place of {names} in paths
            paths = [str(each).replace("{", "{{").replace("}", "}}") for each in (path, partial_target)]
            executed = papermill.execute_notebook(*paths, parameters, **options)
    except Exception as error:  # an error in one notebook must not stop the others
        return f"{_cause(error)}; see {partial_target}"
    if cause := _widget_error(executed):
        return f"{cause}; see {partial_target}"
    os.replace(partial_target, target)
    return ""


def _written_since(run: Path, name: str, start: float) -> list[str]:
    """Tables and figures of notebook `name`, relative to the run folder; file names begin with its number."""
    number = name.partition("_")[0]
    files = [path for kind in ("tables", "figures") for path in (run / kind).glob(f"{number}_*")]
    return sorted(str(path.relative_to(run)) for path in files if path.stat().st_mtime >= start)


def _record(path: Path) -> dict:
    """Read a record of a finished notebook; empty if it is absent or unreadable."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def run_notebook(
    run: Path, plan: dict[str, tuple[Path, dict[str, object]]], content_hash: str, name: str
) -> str | Failure:
    """Execute one notebook of the plan in `run`, unless its files exist for the same source, parameters, data and code.

    Returns: `done` or `done before`, or a `Failure`.
    """
    path, parameters = plan[name]
    target, record_path = run / "notebooks" / path.name, run / "notebooks" / f"{name}.done.json"
    key = key_hash({"parameters": parameters, "source": file_hash(path), "data": content_hash, "code": packages_hash()})
    record = _record(record_path)
    if record.get("key") == key and target.exists() and all((run / file).exists() for file in record["files"]):
        return "done before"
    start = time.time()
    if cause := execute(path, target, parameters):
        return Failure(cause)
    done = {"key": key, "parameters": parameters, "seconds": round(time.time() - start, 1)}
    write_atomic(record_path, json.dumps(done | {"files": _written_since(run, name, start)}, indent=1))
    return "done"


def run_notebooks(
    plan: dict[Path, dict[str, object]], run: Path, content_hash: str, jobs: int, cluster: str = ""
) -> dict[str, str]:
    """Execute the unfinished notebooks, `jobs` at a time or on a cluster; return the causes of failure by name.

    Choice: with several jobs, the last notebooks start first, because they take longest.
    """
    work = partial(
        run_notebook, run, {path.stem: (path, parameters) for path, parameters in plan.items()}, content_hash
    )
    names = [path.stem for path in plan]
    rows = [(name,) for name in (names if jobs == 1 else reversed(names))]
    records = {(name,): _record(run / "notebooks" / f"{name}.done.json").get("seconds") for name in names}
    expected = {row: seconds for row, seconds in records.items() if seconds}
    found = run_all(work, rows, jobs, run / "logs", "notebook", expected, cluster)
    outcomes = {row[0]: out for row, out in found.items()}
    return {name: outcomes[name].cause for name in names if isinstance(outcomes[name], Failure)}
