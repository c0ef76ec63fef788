"""Data and state of the codebook inspector: plain data and pure functions.

An `Atlas` is computed once for a dataset and its tokenizers; a `State` holds the values of the controls. Item rows are
1..N as everywhere; points of the map are item rows minus one.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from bbqrec_core import SemanticIds, Tokenized
from bbqrec_core.tokenizer.semantic_ids import group_sizes
from bbqrec_lab.analysis import maps
from bbqrec_lab.analysis.neighbours import mean_signals, nearest
from bbqrec_lab.analysis.recovery import Stability, seed_stability
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments import tables
from bbqrec_lab.plots.style import title_and_year
from bbqrec_lab.store import Store
from bbqrec_lab.widgets.html_cards import Catalogue, catalogue

MOST = 7  # groups with a colour of their own on the map; the eighth colour for categories is grey, as is the rest
BANDS = {
    "no training event": 0,
    "1 to 9 training events": 1,
    "10 to 99": 10,
    "100 or more": 100,
}  # lowest count of each band


class Space(NamedTuple):
    """Vectors for the search of neighbours: (N+1, d) of unit length, and the mask of items that have a vector."""

    vectors: Float[np.ndarray, "N d"]
    present: Bool[np.ndarray, "N"]


@dataclass(frozen=True, eq=False)
class Atlas:
    """The data of all views.

    Args: name: first tokenizer. items: the catalogue under its IDs. tokens: IDs per tokenizer name, the first one's
        first. plane: (N, 2), the map. method: method of the map, `PCA` or `UMAP`. spaces: vector spaces per name.
        agreement: of the first tokenizer with each other one. folded: titles without case, (N+1).
    """

    name: str
    items: Catalogue
    tokens: Mapping[str, SemanticIds]
    plane: Float[np.ndarray, "N 2"]
    method: str
    spaces: Mapping[str, Space]
    agreement: Mapping[str, Stability]
    folded: tuple[str, ...]

    @property
    def ids(self) -> SemanticIds:
        """IDs of the first tokenizer."""
        return self.tokens[self.name]

    @property
    def others(self) -> list[str]:
        """Names of the other tokenizers."""
        return [name for name in self.tokens if name != self.name]

    @cached_property
    def regions(self) -> list[maps.Region]:
        """Regions of the map with their words, for the labels."""
        return maps.regions(self.plane, terms(self.items))

    @property
    def colourings(self) -> list[str]:
        """The possible colourings of the map."""
        levels = [f"level {level + 1}" for level in range(self.ids.learned)]
        return [*levels, "popularity", "category", "collision group"]


@dataclass(frozen=True)
class State:
    """The choices of the reader.

    Args: selected: item rows in display order. focus: the selected item whose details are shown, 0 for none.
        colour: one of `Atlas.colourings`. query: part of a title, or an item ID of the dataset. level: level of the
        codebook panel, from 1. compared: a tokenizer to compare with, or "". wanted: the chosen code per position,
        None for any. words: whether the map shows words. beside: whether a second map shows the codes of `compared`.
        view: what the map shows: x and y of its centre (the whole map reaches from -1 to 1) and zoom (1 for all).
    Raises: ValueError if the item in focus is not selected, or the zoom is not positive.
    """

    selected: tuple[int, ...] = ()
    focus: int = 0
    colour: str = "level 1"
    query: str = ""
    level: int = 1
    compared: str = ""
    wanted: tuple[int | None, ...] = ()
    words: bool = True
    beside: bool = False
    view: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if not (all(map(math.isfinite, self.view)) and self.view[2] > 0):
            raise ValueError(f"view must be x, y and a positive zoom, got {self.view}")
        if self.focus and self.focus not in self.selected:
            raise ValueError(f"item row {self.focus} is not selected: choose one of the selected items")


def under(atlas: Atlas, name: str) -> Atlas:
    """The same items at the same places under another of the tokenizers.

    Choice: places are those of the first tokenizer. A map made from the vectors of another one would move every item,
    and then the eye cannot compare; at the same places, colours show at once whether its codes hold together what the
    first one's do. Tokenizers without vectors, such as random IDs, have no map of their own anyway.
    """
    ids = atlas.tokens[name]
    items = replace(atlas.items, code_ids=ids.code_ids, sizes=ids.sizes, learned=ids.learned)
    return replace(atlas, name=name, items=items)


def selecting(rows: Sequence[int] | Int[np.ndarray, "rows"]) -> dict[str, object]:
    """State fields that select these item rows, focus on the first, and clear the chosen codes."""
    selected = tuple(int(row) for row in rows)
    return {"selected": selected, "focus": selected[0] if selected else 0, "wanted": ()}


def asking(atlas: Atlas, wanted: Sequence[int | None]) -> dict[str, object]:
    """State fields that select the items with the wanted codes, the most popular first.

    A code that no item has below the codes before it is dropped: it belongs to another branch of the tree.
    """
    kept: list[int | None] = []
    for position, code in enumerate(wanted):
        there = [value for value, _ in choices(atlas.ids.code_ids, kept, position)]
        kept.append(code if code in there else None)
    if all(code is None for code in kept):
        return selecting(())
    rows = rows_with(atlas.ids.code_ids, kept)
    return selecting(rows[np.argsort(-atlas.items.counts[rows], kind="stable")]) | {"wanted": tuple(kept)}


def survey(
    data: NamedDataset,
    tokenizers: Mapping[str, Tokenized],
    store: Store,
    method: Literal["pca", "umap"] = "umap",
    seed: int = 0,
    step: Callable[[str], None] = lambda what: None,
) -> Atlas:
    """Compute the atlas.

    Args: tokenizers: per name; the first is inspected, the others can be compared with it. method: method of the map;
        the store keeps the map. step: called with the name of each step before it begins.
    Raises: ValueError without a tokenizer, or without any vectors (behaviour or features) for the map.
    """
    if not tokenizers:
        raise ValueError("the inspector needs at least one tokenizer, got none")
    name, done = next(iter(tokenizers.items()))
    step("titles and images")
    items = catalogue(data, done.ids)
    step("vector spaces")
    spaces = find_spaces(data, done)
    step(f"{method.upper()} map (stored for later runs)")
    if not spaces:
        raise ValueError(f"{name} has no behaviour vectors and {data.name} has no features: no vectors for the map")
    if done.behaviour.shape[1]:
        plane, _ = maps.map_codes(done, method, seed, store)
    else:
        plane = maps.project(next(iter(spaces.values())).vectors[1:], method, seed, store)
    step("agreement between tokenizers")
    tokens = {key: of.ids for key, of in tokenizers.items()}
    agreement = {
        key: seed_stability([tokens[name].raw_codes, ids.raw_codes]) for key, ids in tokens.items() if key != name
    }
    folded = tuple(title.casefold() for title in items.titles)
    return Atlas(name, items, tokens, plane, method.upper(), spaces, agreement, folded)


def terms(items: Catalogue) -> list[set[str]]:
    """Per item: its categories, the words of its title in small letters, and its decade if the title ends with a year.

    Words that name a category, or that a fifth of the titles contain, as articles do, are left out.
    """
    named = {name.casefold() for of in items.categories for name in of}
    titles = [title_and_year(title) for title in items.titles[1:]]
    words = [set(re.findall(r"\b[^\W\d_]{3,}", title.casefold())) - named for title, _ in titles]
    common = Counter(word for of in words for word in of)
    known = {f"item {source}" for source in items.source_ids}
    return [
        {*categories, *({word for word in own if common[word] < len(titles) / 5} if title not in known else ())}
        | ({f"{year[:3]}0s"} if year else set())
        for categories, own, (title, year) in zip(items.categories[1:], words, titles, strict=True)
    ]


STEPS = 4  # calls of `step` in `survey`


def find_spaces(data: NamedDataset, done: Tokenized) -> dict[str, Space]:
    """The behaviour space of the tokenizer, if it has one, and the feature space of each modality."""
    found = {}
    if done.behaviour.shape[1]:
        present = done.ids.present.any(1)
        found["behaviour"] = Space(_unit(mean_signals(done.behaviour, done.ids.present)), present)
    for name, vectors in data.features.items():
        found[name] = Space(_unit(vectors), data.presence[name])
    return found


def _unit(vectors: Float[np.ndarray, "N d"]) -> Float[np.ndarray, "N d"]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(length, 1e-12)).astype(np.float32)


def near(space: Space, row: int, most: int = 6) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """The nearest items of an item in a space, and their cosines; empty if the item or all others have no vector."""
    count = min(most, int(space.present.sum()) - 1)
    if not space.present[row] or count < 1:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    rows = nearest(space.vectors, space.present, np.array([row]), count)[0]
    return rows, space.vectors[rows] @ space.vectors[row]


def matches(atlas: Atlas, query: str, most: int = 50) -> list[int]:
    """Item rows that match the query, ignoring case: the item with this ID in the dataset, then titles that begin with
    the query, then titles that contain it, then IDs that begin with it.
    """
    wanted = query.strip().casefold()
    if not wanted:
        return []
    ranked = []
    for row, (title, known) in enumerate(zip(atlas.folded, map(str.casefold, atlas.items.source_ids), strict=True)):
        hits = (known == wanted, title.startswith(wanted), wanted in title, known.startswith(wanted))
        if row and any(hits):
            ranked.append((hits.index(True), title, row))
    return [row for _, _, row in sorted(ranked)[:most]]


def named(items: Catalogue, row: int) -> str:
    """Title and item ID, which tells items of the same title apart; an item without a title is named by its ID."""
    title, known = items.titles[row], items.source_ids[row]
    return title if title == f"item {known}" else f"{title} · item {known}"


def counted(items: int | np.integer) -> str:
    """A number of items in words."""
    return f"{items:,} item{'' if items == 1 else 's'}"


def rows_with(codes: Int[np.ndarray, "N sid_len"], wanted: Sequence[int | None]) -> Int[np.ndarray, "found"]:
    """Item rows whose first codes are the wanted ones; None matches any code."""
    hit = np.ones(len(codes), dtype=bool)
    hit[0] = False
    for position, code in enumerate(wanted):
        if code is not None:
            hit &= codes[:, position] == code
    return np.flatnonzero(hit)


def choices(codes: Int[np.ndarray, "N sid_len"], wanted: Sequence[int | None], position: int) -> list[tuple[int, int]]:
    """Codes that occur at a position below the wanted earlier codes, each with its number of items."""
    below = rows_with(codes, wanted[:position])
    values, counts = np.unique(codes[below, position], return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def colouring(atlas: Atlas, by: str) -> dict[str, Bool[np.ndarray, "N"]]:
    """Groups of points that the map shows in colour, largest first, at most `MOST`; points outside them are grey.

    Choice: an item of several categories belongs to the first of them that has a colour.
    Raises: ValueError for an unknown colouring.
    """
    if by not in atlas.colourings:
        raise ValueError(f"colour must be one of {', '.join(atlas.colourings)}, got {by!r}")
    if by == "popularity":
        band = np.searchsorted(list(BANDS.values()), atlas.items.counts[1:], side="right") - 1
        return {words: band == index for index, words in enumerate(BANDS) if (band == index).any()}
    if by == "category":
        return _by_category(atlas.items)
    if by == "collision group":
        return _by_collision(atlas.ids)
    position = int(by.removeprefix("level ")) - 1
    codes = atlas.ids.code_ids[1:, position]
    size = np.bincount(codes)
    largest = [code for code in np.argsort(-size, kind="stable")[:MOST] if size[code]]
    return {f"code {code} ({counted(size[code])})": codes == code for code in largest}


def _by_category(items: Catalogue) -> dict[str, Bool[np.ndarray, "N"]]:
    """The most common categories."""
    names, counts = np.unique([name for of in items.categories for name in of] or [""], return_counts=True)
    common = [str(name) for name in names[np.argsort(-counts, kind="stable")][:MOST] if name]
    first = np.array([next((name for name in of if name in common), "") for of in items.categories[1:]], dtype=str)
    return {name: first == name for name in common if (first == name).any()}


def _by_collision(ids: SemanticIds) -> dict[str, Bool[np.ndarray, "N"]]:
    """The largest groups of items that shared an ID before the repair, and all smaller groups together."""
    size, group = group_sizes(ids.raw_codes)
    crowds = [index for index in np.argsort(-size, kind="stable") if size[index] > 1]
    shown = {}
    for index in crowds[: MOST - 1]:
        code = "-".join(map(str, ids.raw_codes[1:][group == index][0].tolist()))
        shown[f"{code} ({counted(size[index])})"] = group == index
    rest = np.isin(group, crowds[MOST - 1 :])
    return shown | ({f"other shared IDs ({counted(rest.sum())})": rest} if rest.any() else {})


def export(atlas: Atlas, state: State) -> pl.DataFrame:
    """The selection as a table: item_id, title, one column per code, categories, training events. With a second
    tokenizer, its codes have columns too.
    """
    rows, items = list(state.selected), atlas.items
    frame = {"item_id": [items.source_ids[row] for row in rows], "title": [items.titles[row] for row in rows]}
    for name in [atlas.name] + ([state.compared] if state.compared else []):
        for position, column in enumerate(atlas.tokens[name].code_ids[rows].T):
            frame[f"{name}_code_{position + 1}"] = column.tolist()
    frame["categories"] = ["; ".join(items.categories[row]) for row in rows]
    frame["training_events"] = items.counts[rows].tolist()
    return pl.DataFrame(frame)


def export_bytes(atlas: Atlas, state: State) -> bytes:
    """The exported table as CSV in UTF-8. It begins with a byte order mark, without which Excel garbles accents."""
    return ("\ufeff" + tables.csv(export(atlas, state))).encode()


def to_json(atlas: Atlas, state: State) -> str:
    """A state as one line of JSON, which `from_json` reads; items are named by their IDs in the dataset."""
    known = atlas.items.source_ids
    told = vars(state) | {"selected": [known[row] for row in state.selected], "focus": known[state.focus]}
    return json.dumps({"tokenizer": atlas.name} | told, ensure_ascii=False)


def from_json(atlas: Atlas, text: str) -> State:
    """The state of a line of JSON.

    Raises: ValueError if the text is no state, or names a tokenizer, an item or another choice that is not here.
    """
    try:
        told = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is no state as JSON ({error}): copy the whole line") from error
    fields = ["tokenizer", *State.__dataclass_fields__]
    if not isinstance(told, dict) or sorted(told) != sorted(fields):
        raise ValueError(f"a state has the fields {', '.join(fields)}")
    row_of = {known: row for row, known in enumerate(atlas.items.source_ids)}
    lists = isinstance(told["selected"], list) and isinstance(told["wanted"], list)
    names = [*told["selected"], *([told["focus"]] if told["focus"] else [])] if lists else [None]
    if strangers := [name for name in names if not isinstance(name, str) or not row_of.get(name)]:
        raise ValueError(f"this dataset has no item {strangers[0]!r}")
    choice = {
        "tokenizer": [atlas.name],
        "colour": atlas.colourings,
        "level": range(1, atlas.ids.learned + 1),
        "compared": ["", *atlas.others],
    }
    for field, there in choice.items():
        if told[field] not in there:
            raise ValueError(f"{field} must be one of {', '.join(map(str, there))}, got {told[field]!r}")
    view = told["view"]
    if not (isinstance(view, list) and len(view) == 3 and all(type(number) in (int, float) for number in view)):
        raise ValueError(f"view must be x, y and zoom, got {view!r}")
    for field in ("words", "beside"):
        if type(told[field]) is not bool:
            raise ValueError(f"{field} must be true or false, got {told[field]!r}")
    del told["tokenizer"]
    told |= {"selected": tuple(row_of[name] for name in told["selected"]), "focus": row_of[told["focus"] or ""]}
    told["view"] = tuple(map(float, view))
    return State(**told | {"query": str(told["query"]), "wanted": asking(atlas, told["wanted"])["wanted"]})
