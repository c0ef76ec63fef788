"""Rows of long runs that are committed with the code: their results and the rank of every user, without the model.

A committed row is one archive `figures/DATASET/PRESET/rows/VARIANT-SEED.zip`, so that tables, and intervals against
rows of later days, need no training. `make full` writes them; `runs.find_row` reads them.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from bbqrec_core import Sequences
from bbqrec_lab.code_keys import ROOT
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments.presets import default_config
from bbqrec_lab.settings import DataConfig
from bbqrec_lab.store import load_arrays, replace_synced, save_arrays, write_atomic

FOLDER = ROOT / "figures"
NOTE = "committed.json"  # in an archive: the key of the run, and the hash of the events that it ranks
RESULTS = ("rows.csv", "run.json")
RANKS = ("ranks_included.npz", "ranks_filtered.npz")
FREE = ("code", "torch")  # parts of a key that may differ: a committed row says which code made it


def row_file(dataset: str, preset: str, variant: str, seed: int, folder: Path = FOLDER) -> Path:
    """The archive of a row; it may not exist."""
    return folder / dataset / preset / "rows" / f"{variant}-{seed}.zip"


def events_hash(sequences: Sequences) -> str:
    """Hash of the events of all users in their order, 32 hex digits: equal ones give every user the same target.

    The hash of a dataset also covers features, which a decomposition can make a little different on each processor.
    """
    digest = hashlib.sha256(sequences.offsets.astype("<i8").tobytes())
    digest.update(sequences.items.astype("<i4").tobytes())
    return digest.hexdigest()[:32]


def write(path: Path, directory: Path, key: Mapping[str, object], data: NamedDataset, options: DataConfig) -> None:
    """Pack the results of a finished run; equal runs give equal bytes.

    The lists of recommended items stay behind, because they are ten times as large as the ranks.
    """
    note = {"key": dict(key), "reading": asdict(options), "events": events_hash(data.sequences)}
    members = {NOTE: json.dumps(note, indent=1, sort_keys=True).encode()}
    members |= {name: (directory / name).read_bytes() for name in RESULTS}
    partial = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in RANKS:
        ranks = load_arrays(directory / name)
        ranks["top"] = ranks["top"][:, :0]
        save_arrays(partial, **ranks)
        members[name] = partial.read_bytes()
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # ZipInfo: a fixed date
    replace_synced(partial, path)


def find(path: Path, key: Mapping[str, object], data: NamedDataset, options: DataConfig) -> dict[str, object] | None:
    """The key of a committed row that has the settings of `key` and ranks the same events; None if there is none.

    Settings that did not exist when the row was made count as their defaults. Code, torch and features may differ.

    Raises: ValueError for an archive that cannot be read.
    """
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            note = json.loads(archive.read(NOTE))
        made = _settings(note["key"] | {"data": note["reading"]}), note["events"]
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): restore it with git checkout, or delete it") from None
    asked = json.loads(json.dumps(dict(key) | {"data": asdict(options)}))
    return note["key"] if made == (_settings(asked), events_hash(data.sequences)) else None


def _settings(key: Mapping[str, object]) -> dict[str, object]:
    """A key without what may differ, in which settings that it lacks have their defaults."""
    defaults = json.loads(json.dumps(asdict(default_config())))
    complete = {name: defaults[name] | value if isinstance(value, dict) else value for name, value in key.items()}
    return {name: value for name, value in complete.items() if name not in FREE}


def unpack(path: Path, directory: Path) -> None:
    """Write the files of a committed row into a directory, where they are read like those of a finished run."""
    with zipfile.ZipFile(path) as archive:
        for name in (*RESULTS, *RANKS):
            write_atomic(directory / name, archive.read(name))
