"""Semantic IDs as files for other tools: parquet, and `index.json` as in published code of the field."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int

from bbqrec_lab.datasets.bundle import map_array, need_file
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.store import write_atomic
from bbqrec_lab.terminal import say

TOKEN = re.compile(r"<(?:\w+_)?([A-Za-z])_(\d+)>")  # position a, b, c, ... and code; some have a mark: <item_a_12>
BOUNDARY = re.compile(r"<\|\w+\|>")  # <|sid_begin|> around the tokens of an ID
MOST_CODE, MOST_POSITIONS = 2**20, 64  # of an ID: a table of vectors is made for every code up to the highest
FORM = '["<a_12>", "<b_3>", ...] or [12, 3, ...] for each item id'


def write_ids(path: Path, item_ids: pl.Series, code_ids: Int[np.ndarray, "rows sid_len"]) -> None:
    """Write the ID of every item.

    Args: path: `.parquet` (columns item_id, codes: list of integers) or `.json`, {"item id": ["<a_12>", "<b_3>", ...]}.
        item_ids: original ids of rows 1..N; parquet keeps their type. code_ids: (N+1, sid_len), row 0 is padding.
    Raises: ValueError for another file ending, or for more than 26 positions in `.json`.
    """
    table, ending = code_ids[1:], path.suffix.lower()
    path.parent.mkdir(parents=True, exist_ok=True)
    if ending == ".parquet":
        pl.DataFrame({"item_id": item_ids, "codes": table.tolist()}).write_parquet(path)
    elif ending == ".json" and table.shape[1] <= 26:
        tokens = [[f"<{chr(97 + place)}_{code}>" for place, code in enumerate(codes)] for codes in table.tolist()]
        write_atomic(path, json.dumps(dict(zip(map(str, item_ids.to_list()), tokens, strict=True)), indent=0))
    else:
        raise ValueError(f"IDs are written as .parquet or .json (at most 26 positions), got {path.name}")


def read_ids(path: Path, data: NamedDataset) -> Int[np.ndarray, "rows sid_len"]:
    """The ID of every item of a dataset, (N+1, sid_len), unchanged; items that the data lack are ignored and counted.

    Args: path: `.parquet` with columns item_id and codes; `.json` with codes by item id; or `.npy`, whose rows are
        those of items.parquet. The codes of an item are a list of integers or of tokens such as <a_12>, or one text of
        tokens; tokens may be in upper case or have a mark, as <item_a_12>, and their letters go up from the first.
    Raises: ValueError naming file, item and remedy: an unreadable file, an item without ID or with two, IDs of unequal
        length, codes that are not integers of at least 0.
    """
    readers = {".parquet": _parquet, ".json": _index}
    ending = path.suffix.lower()
    need_file(path)
    if ending == ".npy":
        found = _array(path, data)
    elif ending in readers:
        found = readers[ending](path)
    else:
        raise ValueError(f"{path}: IDs are read from .json, .parquet or .npy: {FORM}")
    wanted = [str(item) for item in data.items["item_id"].to_list()]
    missing = [item for item in wanted if item not in found]
    if missing:
        some = ", ".join(missing[:5])
        raise ValueError(f"{path}: no ID for {len(missing)} of {len(wanted)} items ({some}): add them to the file")
    if unused := len(found) - len(wanted):
        say(f"{path}: {unused} of {len(found)} items are not in the data and are left out")
    parsed = _consistent(path, {item: _codes(path, item, found[item]) for item in wanted})
    return np.array([[0] * len(parsed[0]), *parsed], dtype=np.int64)


def _consistent(path: Path, parsed: dict[str, tuple[str, list[int]]]) -> list[list[int]]:
    """The codes of all items, which have one length and the same letters of tokens."""
    length = Counter(len(codes) for _, codes in parsed.values()).most_common(1)[0][0]
    for item, (_, codes) in parsed.items():
        if len(codes) != length or not length:
            raise ValueError(f"{path}: item {item} has {len(codes)} codes, others have {length}: use one length")
    usual = Counter(letters for letters, _ in parsed.values()).most_common(1)[0][0]
    for item, (letters, _) in parsed.items():
        if letters != usual:
            has, others = (f"the positions {some!r}" if some else "integers" for some in (letters, usual))
            raise ValueError(f"{path}: item {item} has {has}, others have {others}: write tokens in order, {FORM}")
    return [codes for _, codes in parsed.values()]


def _codes(path: Path, item: str, entry: object) -> tuple[str, list[int]]:
    """The letters of the tokens of an item, in lower case (empty for integers), and its codes."""
    parts = _tokens(entry) if isinstance(entry, str) else entry
    if not isinstance(parts, list):
        raise ValueError(f"{path}: item {item} has {_brief(entry)}, expected {FORM}")
    if len(parts) > MOST_POSITIONS:
        raise ValueError(f"{path}: item {item} has {len(parts)} codes: use at most {MOST_POSITIONS}")
    if all(isinstance(part, int | float) and not isinstance(part, bool) for part in parts):
        if any(not 0 <= part <= MOST_CODE or part != int(part) for part in parts):
            raise ValueError(
                f"{path}: item {item} has codes {_brief(parts)}: use integers of at least 0 and at most {MOST_CODE}"
            )
        return "", [int(part) for part in parts]
    matches = [TOKEN.fullmatch(part) if isinstance(part, str) else None for part in parts]
    letters = "".join(match[1].lower() for match in matches if match)
    rising = "".join(chr(ord(letters[0]) + place) for place in range(len(letters))) if letters else ""
    if None in matches or letters != rising:
        raise ValueError(f"{path}: item {item} has {_brief(entry)}: write tokens in order, {FORM}")
    if any(len(match[2]) > 9 or int(match[2]) > MOST_CODE for match in matches):
        raise ValueError(f"{path}: item {item} has {_brief(entry)}: use codes of 0 to {MOST_CODE}")
    return letters, [int(match[2]) for match in matches]


def _brief(entry: object) -> str:
    """An entry for a message, cut after 80 letters."""
    text = repr(entry)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _tokens(text: str) -> list[str]:
    """The tokens of an ID that is one text; other texts stay as they are, so that they are refused."""
    inside = BOUNDARY.sub("", text)
    found = [match[0] for match in TOKEN.finditer(inside)]
    return found if "".join(found) == re.sub(r"\s", "", inside) else [text]


def _parquet(path: Path) -> dict[str, object]:
    """Codes by item id of a parquet file."""
    try:
        frame = pl.read_parquet(path, columns=["item_id", "codes"], glob=False)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        cause = (str(error).splitlines() or ["unreadable"])[0]
        raise ValueError(f"{path}: expected parquet with columns item_id and codes: {cause}") from error
    if frame["item_id"].dtype.is_nested() or frame["item_id"].null_count():
        raise ValueError(f"{path}: item_id must be one number or text in every row: remove rows without it")
    return _unique(path, zip(frame["item_id"].cast(pl.String).to_list(), frame["codes"].to_list(), strict=True))


def _index(path: Path) -> dict[str, object]:
    """Codes by item id of an index.json."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: _unique(path, pairs))
    except RecursionError as error:
        raise ValueError(f"{path}: lists inside lists without end: expected a JSON object with {FORM}") from error
    except (OSError, ValueError) as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}: expected {FORM}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path}: expected a JSON object with {FORM}, found a {type(entries).__name__}")
    return entries


def _array(path: Path, data: NamedDataset) -> dict[str, object]:
    """Codes by item id of an array whose rows are those of items.parquet."""
    array = map_array(path)
    if not data.path:
        raise ValueError(f"{path}: the data come from no folder, so the order of its rows is unknown: {FORM}")
    items = pl.read_parquet(Path(data.path) / "items.parquet", columns=["item_id"], glob=False)["item_id"]
    if array.ndim != 2 or len(array) != len(items) or array.dtype.kind not in "iuf":
        wanted = f"one row of integers for each of the {len(items)} rows of items.parquet"
        raise ValueError(f"{path}: {array.dtype} of shape {array.shape}, expected {wanted}")
    return dict(zip(items.cast(pl.String).to_list(), array.tolist(), strict=True))


def _unique(path: Path, pairs: object) -> dict[str, object]:
    """A mapping of pairs. Raises: ValueError for an item that comes twice."""
    found: dict[str, object] = {}
    for item, codes in pairs:
        if item in found:
            raise ValueError(f"{path}: item {item} has two IDs: keep one")
        found[item] = codes
    return found
