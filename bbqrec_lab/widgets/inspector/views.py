"""Views of the codebook inspector: pure functions from an atlas and a state to HTML."""

import base64
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from bbqrec_core import SemanticIds
from bbqrec_core.tokenizer.semantic_ids import group_sizes
from bbqrec_lab import escaping
from bbqrec_lab.plots.style import CATEGORIES
from bbqrec_lab.widgets import html_cards
from bbqrec_lab.widgets.html_cards import Html
from bbqrec_lab.widgets.inspector.atlas import Atlas, Space, State, colouring, counted, export_bytes, named, near, under

CARDS, SIBLINGS, CODES, COMPARED = 18, 10, 6, 10  # maximum numbers on display
NOTHING = "Nothing is selected. Select items on the map, by title or by code."
ALONE = (
    "Only one tokenizer was given. To compare it with another one, add a name such as tiger or random-ids to the list "
    "of names for survey_workspace; a tokenizer that is missing is trained."
)
PAPER = {False: "white", True: "#111111"}  # background of the map, in light and in dark themes
GREY = {False: "#d4d4d4", True: "#5a5a5a"}  # points of the map in no coloured group
FADED = {False: 0.4, True: 0.7}  # opacity of the other points beside selected ones
CHOSEN = {False: "#111111", True: "#ffffff"}  # selected points of the map
CAUTION = {
    "PCA": "PCA map: the two directions in which the vectors differ most; near points can differ in other directions",
    "UMAP": "UMAP map: near points are similar; large distances have no meaning",
}


def selection_view(atlas: Atlas, state: State) -> Html:
    """The selected items as cards."""
    count = len(state.selected)
    more = f" (the first {CARDS} are shown)" if count > CARDS else ""
    shown, items = state.selected[:CARDS], atlas.items
    # A card without categories has the ID of the dataset in their place.
    notes = [f"item {items.source_ids[row]}" if items.categories[row] else "" for row in shown]
    cards = html_cards.card_row(items, shown, notes, empty=NOTHING)
    plain = f'class="bb-card" data-row="{state.focus}"'
    cards = Html(cards.replace(plain, plain.replace("bb-card", "bb-card bb-focus")))
    return html_cards.section(f"Selected items: {count} of {items.n_items:,}{more}", cards)


def path_view(atlas: Atlas, state: State) -> Html:
    """The path of the item in the prefix tree: per level the node, its number of items, and its siblings."""
    if not state.focus:
        return html_cards.section("Path in the prefix tree", NOTHING)
    codes, own = atlas.ids.code_ids[1:], atlas.ids.code_ids[state.focus]
    here = np.ones(len(codes), dtype=bool)
    rows = []
    for position, code in enumerate(own):
        size = np.bincount(codes[here, position])
        others = [other for other in np.argsort(-size, kind="stable") if size[other] and other != code]
        here &= codes[:, position] == code
        path = _chips(atlas, own[: position + 1])
        rows.append((path, int(here.sum()), len(others), _with_counts(atlas, own[:position], others, size)))
    columns = ("prefix", "items", "siblings", f"largest siblings with their numbers of items (at most {SIBLINGS})")
    return html_cards.section(
        f"Path in the prefix tree: {named(atlas.items, state.focus)}", html_cards.table(columns, rows)
    )


def _chips(atlas: Atlas, codes: Int[np.ndarray, "positions"] | list, first: int = 0) -> Html:
    return html_cards.chips([int(code) for code in codes], atlas.items.sizes, atlas.items.learned, first)


def _with_counts(
    atlas: Atlas, prefix: Int[np.ndarray, "positions"], codes: list, size: Int[np.ndarray, "codes"]
) -> Html:
    """Chips of single codes below a prefix, each followed by its number of items."""
    one = '<span class="bb-key">{}&thinsp;{}</span>'  # chip and number stay on one line
    shown = "".join(one.format(_chips(atlas, [code], len(prefix)), size[code]) for code in codes[:SIBLINGS])
    return Html(f'<span data-prefix="{",".join(map(str, prefix))}">{shown}</span>' if shown else "none")


def item_link(atlas: Atlas, row: int) -> Html:
    """Title and ID of an item in a table; the live inspector selects the item at a click."""
    name = escaping.html(named(atlas.items, row))
    return Html(f'<span class="bb-item" data-row="{row}">{name}</span>')


def codebook_view(atlas: Atlas, state: State) -> Html:
    """The code of the item at one level: its use, and the nearest vectors of the codebook."""
    title = f"Codebook of level {state.level}"
    if not state.focus:
        return html_cards.section(title, NOTHING)
    position = state.level - 1
    book, codes = atlas.ids.codebook, atlas.ids.code_ids[1:, position]
    code, size = int(atlas.ids.code_ids[state.focus, position]), atlas.ids.sizes[position]
    use = np.bincount(codes, minlength=size)
    rank = int((use > use[code]).sum()) + 1
    told = (
        f"Code {code} has {counted(use[code])}: rank {rank} of {size} codes by use. "
        f"{int((use == 0).sum())} codes of this level are unused."
    )
    if position >= len(book) or not book[position].any():
        return html_cards.section(title, told, "These IDs have no codebook vectors: the codes are only numbers.")
    distance = np.linalg.norm(book[position][:size] - book[position][code], axis=1)
    order = [other for other in np.argsort(distance, kind="stable") if other != code][:CODES]
    rows = [
        (
            _chips(atlas, [other], position),
            float(distance[other]),
            int(use[other]),
            _example(atlas, position, int(other)),
        )
        for other in order
    ]
    table = html_cards.table(("nearest codes", "distance", "items", "most popular item"), rows)
    return html_cards.section(f"{title}, vector of code {code}", told, table)


def _example(atlas: Atlas, position: int, code: int) -> str:
    """The most popular item with a code."""
    rows = np.flatnonzero(atlas.ids.code_ids[1:, position] == code) + 1
    return item_link(atlas, int(rows[atlas.items.counts[rows].argmax()])) if len(rows) else "(unused)"


def neighbours_view(atlas: Atlas, state: State) -> Html:
    """The nearest items of the item, one column per space."""
    if not state.focus:
        return html_cards.section("Nearest items", NOTHING)
    parts = {}
    for name, space in atlas.spaces.items():
        rows, cosine = near(space, state.focus)
        found = [
            html_cards.mini(atlas.items, int(row), f"{value:.2f} · item {atlas.items.source_ids[row]}")
            for row, value in zip(rows, cosine, strict=True)
        ]
        parts[f"in {name} space"] = Html("".join(found)) if found else f"This item has no {name} vector."
    title = f"Nearest items of {named(atlas.items, state.focus)}, with cosine similarity"
    return html_cards.section(title, html_cards.columns(parts))


def compare_view(atlas: Atlas, state: State) -> Html:
    """The selected items under two tokenizers, and the agreement of the two groupings."""
    if not state.compared:
        words = "Choose a second tokenizer to compare with." if atlas.others else ALONE
        return html_cards.section("Compare tokenizers", words)
    both = atlas.agreement[state.compared]
    known = ", ".join(f"{value:.2f}" for value in both.agreement)
    told = [
        f"Whole catalogue: {both.together[0]:.0%} of the item pairs that share the first code under one tokenizer also "
        f"share it under the other ({both.by_chance[0]:.1%} expected by chance). Agreement per prefix length (adjusted "
        f"mutual information; nan if no two items share a prefix): {known}."
    ]
    ids = {name: atlas.tokens[name] for name in (atlas.name, state.compared)}
    chosen = list(state.selected)
    if len(chosen) > 1:
        pairs = {name: _pairs_together(one.code_ids[chosen, 0]) for name, one in ids.items()}
        told.append(
            "Selected items, pairs that share the first code: "
            + "; ".join(f"{name} {hit} of {every}" for name, (hit, every) in pairs.items())
            + "."
        )
    rows = [
        [item_link(atlas, row), *(_chips_of(one, row, name != atlas.name) for name, one in ids.items())]
        for row in chosen[:COMPARED]
    ]
    shown = html_cards.table(("item", *ids), rows) if rows else NOTHING
    return html_cards.section(f"Compare {atlas.name} with {state.compared}", *told, shown)


def _chips_of(ids: SemanticIds, row: int, other: bool) -> Html:
    """The ID of an item under a tokenizer; `other` marks those of another tokenizer than the inspected one."""
    shown = html_cards.chips(ids.code_ids[row], ids.sizes, ids.learned)
    return Html(f"<span data-other>{shown}</span>") if other else shown


def _pairs_together(codes: Int[np.ndarray, "items"]) -> tuple[int, int]:
    """Pairs of items with the same code, and all pairs."""
    size, n = np.unique(codes, return_counts=True)[1], len(codes)
    return int((size * (size - 1) // 2).sum()), n * (n - 1) // 2


def legend_view(atlas: Atlas, state: State) -> Html:
    """The legend of the map. Grey points and the selection are described in words: neither is a group."""
    told = [f"Ringed: {len(state.selected):,} selected." if state.selected else "Click a point, or draw a lasso."]
    told.append(f"{CAUTION[atlas.method]}.")
    if state.words:
        told.append("Words: typical of the items around them.")
    return _legend(atlas, state, told)


def second_legend_view(atlas: Atlas, state: State) -> Html:
    """The legend of the second map, whose colours are those of the tokenizer that the state compares with."""
    if not (state.beside and state.compared):
        return Html("")
    return _legend(under(atlas, state.compared), state, ["Each item lies where it lies on the first map."])


def _legend(atlas: Atlas, state: State, told: list[str]) -> Html:
    """Name of the tokenizer if there are two maps, groups of the colouring, number of grey points, and some words."""
    by = state.colour
    groups = colouring(atlas, by) if by in atlas.colourings else {}
    dot = '<span class="bb-key"><span class="bb-dot" style="background:{}"></span>{}</span> '
    colours = palette(by, len(groups))
    shown = "".join(dot.format(colour, escaping.html(name)) for name, colour in zip(groups, colours, strict=True))
    if not groups:
        shown = f"There are no groups for the colouring {escaping.html(by)}."
    rest = atlas.items.n_items - int(np.any([*groups.values()], axis=0).sum()) if groups else atlas.items.n_items
    grey = [f"Grey: {counted(rest)} in no coloured group."] if rest else []
    name = f'<b class="bb-key">{escaping.html(atlas.name)}</b> ' if state.beside and state.compared else ""
    return Html(f"<p>{name}{shown}</p><p>{' '.join([*grey, *told])}</p>")


def palette(by: str, groups: int) -> list[str]:
    """Colours of the groups of a colouring: ordered for popularity, else the colours for categories."""
    if by == "popularity":
        return [html_cards.code_colour(index, groups)[0] for index in range(groups)]
    return list(CATEGORIES[:groups])


def export_view(atlas: Atlas, state: State) -> Html:
    """A link that downloads the selection as CSV; the link contains the file."""
    if not state.selected:
        return Html("<p>Nothing is selected, so there is nothing to export.</p>")
    data = base64.b64encode(export_bytes(atlas, state)).decode()
    rows = f"{len(state.selected)} row{'' if len(state.selected) == 1 else 's'}"
    link = f'<a download="selection.csv" href="data:text/csv;base64,{data}">Download {rows} as CSV</a>'
    return Html(f"<p>{link}</p>")


def sharing(atlas: Atlas) -> list[str]:
    """Sentences about the items that share an ID of the first tokenizer before the repair: how alike they are, how
    often they are used, and whether an ID is still shared after the repair.
    """
    size, group = group_sizes(atlas.ids.raw_codes)
    shared, events = size[group] > 1, atlas.items.counts[1:]
    if not shared.any():
        return [f"No two of the {counted(len(group))} share an ID before the repair."]
    groups = int((size > 1).sum())
    told = [
        f"{counted(shared.sum())} of {len(group):,} share their ID before the repair, in {groups:,} "
        f"group{'' if groups == 1 else 's'} of at most {counted(size.max())}."
    ]
    alike = []
    for name, space in atlas.spaces.items():
        within, anyhow = _mean_cosine(space, group), _mean_cosine(space, np.zeros_like(group))
        if not np.isnan(within):
            told.append(f"In {name} space their mean cosine is {within:.2f}; that of any two items is {anyhow:.2f}.")
            alike += [name] if within > anyhow else []
    more = f"in {', '.join(alike)} space" if alike else "in no space"
    told.append(f"Items that share an ID are more alike than any two items {more}.")
    if not shared.all():
        ours, others = np.median(events[shared]), np.median(events[~shared])
        told.append(f"Half of them have at most {ours:g} training events; half of the other items at most {others:g}.")
    left = group_sizes(atlas.ids.code_ids)
    still = int((left[0][left[1]] > 1).sum())
    told.append(f"After the repair {counted(still) if still else 'no item'} share{'' if still > 1 else 's'} an ID.")
    return told


def _mean_cosine(space: Space, group: Int[np.ndarray, "items"]) -> float:
    """The mean cosine of all pairs of items in the same group that have a vector; nan if there is no such pair.

    The sum over the pairs of a group follows from the length of the sum of its unit vectors.
    """
    vectors, group = space.vectors[1:][space.present[1:]].astype(np.float64), group[space.present[1:]]
    n = np.bincount(group)
    total = np.zeros((len(n), vectors.shape[1]))
    np.add.at(total, group, vectors)
    pairs = (n * (n - 1)).sum()
    return float(((total**2).sum() - (vectors**2).sum()) / pairs) if pairs else float("nan")


VIEWS: dict[str, Callable[[Atlas, State], Html]] = {
    "selection": selection_view,
    "path": path_view,
    "codebook": codebook_view,
    "neighbours": neighbours_view,
    "compare": compare_view,
}


def panels_view(atlas: Atlas, state: State) -> Html:
    """All panels of a state below each other; a panel that fails shows its error, and the others are shown.

    Choice: one piece of HTML, because the browser repeats the page layout for every piece that it receives.
    """
    shown = []
    for view in VIEWS.values():
        try:
            shown.append(view(atlas, state))
        except Exception as problem:  # an error in one panel must not hide the others
            shown.append(html_cards.error_panel(problem))
    return Html("".join(shown))


def static_page(atlas: Atlas, state: State) -> Html:
    """All panels of a state, for a reader without a kernel."""
    return html_cards.page(panels_view(atlas, state))
