"""Semantic IDs as files for other tools: parquet, and `index.json` as in published code of the field."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int

from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.store import write_atomic

TOKEN = re.compile(r"<([a-z])_(\d+)>")  # position a, b, c, ... and code


def write_ids(path: Path, item_ids: pl.Series, code_ids: Int[np.ndarray, "rows sid_len"]) -> None:
    """Write the ID of every item.

    Args: path: `.parquet` (columns item_id, codes: list of integers) or `.json`, {"item id": ["<a_12>", "<b_3>", ...]}.
        item_ids: original ids of rows 1..N. code_ids: (N+1, sid_len), row 0 is padding.
    Raises: ValueError for another file ending, or for more than 26 positions in `.json`.
    """
    table = code_ids[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pl.DataFrame({"item_id": item_ids, "codes": table.tolist()}).write_parquet(path)
    elif path.suffix == ".json" and table.shape[1] <= 26:
        tokens = [[f"<{chr(97 + place)}_{code}>" for place, code in enumerate(codes)] for codes in table.tolist()]
        write_atomic(path, json.dumps(dict(zip(map(str, item_ids.to_list()), tokens, strict=True)), indent=0))
    else:
        raise ValueError(f"IDs are written as .parquet or .json (at most 26 positions), got {path.name}")


def read_ids(path: Path, data: NamedDataset) -> Int[np.ndarray, "rows sid_len"]:
    """The ID of every item of a dataset, (N+1, sid_len); items of the file that the data lack are ignored.

    Raises: ValueError naming file, item and remedy: an unreadable file, an item without ID, IDs of unequal length,
        codes that are not integers of at least 0.
    """
    found = _parquet(path) if path.suffix == ".parquet" else _index(path)
    wanted = [str(item) for item in data.items["item_id"].to_list()]
    missing = [item for item in wanted if item not in found]
    if missing:
        some = ", ".join(missing[:5])
        raise ValueError(f"{path}: no ID for {len(missing)} of {len(wanted)} items ({some}): add them to the file")
    length = len(found[wanted[0]])
    for item in wanted:
        if len(found[item]) != length or not length:
            raise ValueError(f"{path}: item {item} has {len(found[item])} codes, others have {length}: use one length")
        if any(not isinstance(code, int) or code < 0 for code in found[item]):
            raise ValueError(f"{path}: item {item} has codes {found[item]}: use integers of at least 0")
    return np.array([[0] * length, *(found[item] for item in wanted)], dtype=np.int64)


def _parquet(path: Path) -> dict[str, list[int]]:
    """Codes by item id of a parquet file."""
    try:
        frame = pl.read_parquet(path, columns=["item_id", "codes"])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{path}: expected parquet with columns item_id and codes: {error}") from error
    return dict(zip(map(str, frame["item_id"].to_list()), frame["codes"].to_list(), strict=True))


def _index(path: Path) -> dict[str, list[int]]:
    """Codes by item id of an index.json."""
    try:
        entries = json.loads(path.read_text())
        tokens = {item: [TOKEN.fullmatch(token) for token in row] for item, row in entries.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f'{path}: expected {{"item id": ["<a_12>", "<b_3>", ...]}}: {error}') from error
    for item, row in tokens.items():
        if [match and match[1] for match in row] != [chr(97 + place) for place in range(len(row))]:
            raise ValueError(f"{path}: item {item} has tokens {entries[item]}: use <a_1>, <b_2>, ... in order")
    return {item: [int(match[2]) for match in row] for item, row in tokens.items()}
