"""Recommendation playground: build a history, follow the beam search, see the recommendations and their reasons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import ipywidgets
import numpy as np

from bbqrec_core import Recommender
from bbqrec_lab.analysis import explanations
from bbqrec_lab.analysis.explanations import Depth, Scorer
from bbqrec_lab.widgets.html_cards import Catalogue, Html, card_row, chips, code_colour, section, table, text
from bbqrec_lab.widgets.state_board import LABEL, Live

HITS, COMPARED = 8, 6  # search results on display; items of the other run on display
NONE = "nothing"  # the name of the other run if there is no comparison
BOX, GAP, TALL = 168, 62, 38  # pixels of the beam drawing: width of a box, gap between levels, height of a row


@dataclass(frozen=True, eq=False)
class Playroom:
    """The catalogue and the models of the playground.

    Args: items: the catalogue, with the IDs of the first run. runs: name -> model; the first one emits codes and its
        beam is shown, the others are compared with it.
    Raises: ValueError if the first run has no codes or reads codes.
    """

    items: Catalogue
    runs: Mapping[str, Scorer]

    def __post_init__(self) -> None:
        if explanations.readable(self.main).tree is None:
            raise ValueError("the first run has no codes: the first run must emit semantic IDs")

    @property
    def main(self) -> Recommender:
        """The run whose beam is shown."""
        return next(iter(self.runs.values()))

    @cached_property
    def folded(self) -> tuple[str, ...]:
        """Titles and source ids of all items in lower case, for the search."""
        both = zip(self.items.titles, self.items.source_ids, strict=True)
        return tuple(f"{title}\n{source}".casefold() for title, source in both)

    def find(self, words: str, most: int = HITS) -> list[int]:
        """Rows of the items whose title or source id contains every word, the most popular in training first."""
        wanted = words.casefold().split()
        hits = [row for row in range(1, len(self.folded)) if all(word in self.folded[row] for word in wanted)]
        return sorted(hits, key=lambda row: (-int(self.items.counts[row]), row))[:most]


@dataclass(frozen=True)
class PlaygroundState:
    """The choices of the reader.

    Args: history: item rows, oldest first. width: beam width. depth: number of levels shown.
        off: signals whose channels have no offsets. against: name of the run to compare with, or `NONE`.
    Raises: ValueError for a beam width or depth below 1.
    """

    history: tuple[int, ...] = ()
    width: int = 6
    depth: int = 1
    off: tuple[str, ...] = ()
    against: str = NONE

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1:
            raise ValueError(f"beam width and number of levels must be at least 1, got {self.width} and {self.depth}")


def percent(score: float) -> str:
    """A log-probability in nats as a percentage with three significant digits."""
    share = 100 * float(np.exp(score))
    return f"{share:.3g} %" if share >= 0.01 else "< 0.01 %"


def _box(depth: Depth, line: int, sizes: Sequence[int], learned: int, x: float) -> str:
    """One prefix of the beam: its codes, its probability, and the number of items below it."""
    y, parts = line * TALL, []
    parts.append(f'<rect x="{x}" y="{y + 2}" width="{BOX}" height="{TALL - 6}" rx="5" fill="#fff" stroke="#9aa3ad"/>')
    for position, code in enumerate(depth.prefixes[line].tolist()):
        back, letters = code_colour(code, sizes[position]) if position < learned else ("#fff", "#222222")
        at = x + 6 + 27 * position
        parts.append(f'<rect x="{at}" y="{y + 8}" width="25" height="16" rx="8" fill="{back}" stroke="#9aa3ad"/>')
        parts.append(f'<text x="{at + 12.5}" y="{y + 20}" text-anchor="middle" fill="{letters}">{code}</text>')
    items, chance = int(depth.items[line]), text(percent(float(depth.scores[line])))
    unit = "item" if items == 1 else "items"
    end = f'x="{x + BOX - 6}" text-anchor="end"'
    parts.append(f'<text {end} y="{y + 15}" font-weight="600" fill="#222">{chance}</text>')
    parts.append(f'<text {end} y="{y + 28}" fill="#5b646e">{items} {unit}</text>')
    return "".join(parts)


def beam_picture(depths: Sequence[Depth], sizes: Sequence[int], learned: int) -> Html:
    """The beam from left to right, one column per level; line width is the share of the parent's probability."""
    tall = TALL * max(len(depth.scores) for depth in depths)
    parts, middle = [], TALL / 2 - 1
    for level, depth in enumerate(depths):
        x = level * (BOX + GAP)
        for line in range(len(depth.scores)):
            parent = int(depth.parent[line])
            if level:
                share = float(np.exp(depth.scores[line] - depths[level - 1].scores[parent]))
                start, end = parent * TALL + middle, line * TALL + middle
                curve = f"M{x - GAP} {start}C{x - GAP / 2} {start} {x - GAP / 2} {end} {x} {end}"
                parts.append(f'<path d="{curve}" fill="none" stroke="#5b646e" stroke-width="{0.6 + 6 * share:.1f}"/>')
            parts.append(_box(depth, line, sizes, learned, x))
    wide = len(depths) * (BOX + GAP) - GAP
    label = f"Beam search, {len(depths)} levels; the table below lists the best items."
    head = "".join(
        f'<div style="width:{BOX + GAP}px;flex:none"><b>level {level}</b>: {len(depth.scores)} of {depth.nodes:,} '
        f"prefixes<br>with {100 * float(np.exp(depth.scores).sum()):.3g} % of the probability</div>"
        for level, depth in enumerate(depths, start=1)
    )
    drawn = (
        f'<svg width="{wide + 2}" height="{tall}" font-size="11" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )
    return Html(f'<div class="bb-scroll"><div style="display:flex;width:{wide + GAP}px">{head}</div>{drawn}</div>')


def _switched(model: Recommender, off: Sequence[str]) -> str:
    """A sentence on what is switched off and what is not."""
    if not off:
        return ""
    silent = ", ".join(explanations.channels_of(model, off))
    return (
        f"Switched off: {', '.join(off)}. Attention gets no offset from the channels {silent}. The codes do not "
        "change: they were computed from all signals, so a signal that is off here still acts through the codes."
    )


def _reasons(room: Playroom, model: Recommender, history: Sequence[int], picked: Sequence[int]) -> list[list[object]]:
    """For each item: the event with the largest effect, the probability without it, and the longest shared prefix."""
    items, read = room.items, explanations.read_part(model, history)[0].tolist()
    unread = len(history) - len(read)
    names = [f"{unread + t + 1} {items.titles[row]}" for t, row in enumerate(read)]
    whole, shorter = explanations.without_each(model, history, picked)
    lines = []
    for index, row in enumerate(picked):
        if not len(shorter):
            hangs = "this is the only event"
        elif float(shorter[:, index].min()) >= float(whole[index]):
            hangs = "none: no removal lowers the probability"
        else:
            event = int(shorter[:, index].argmin())
            hangs = f"{names[event]}: {percent(float(whole[index]))} → {percent(float(shorter[event, index]))}"
        event, shared = explanations.shared_codes(items.code_ids, int(row), read)
        prefix = chips(items.code_ids[row][:shared], items.sizes, items.learned)
        alike = Html(f"{prefix} with {text(names[event])}") if shared else "none: the first code differs"
        lines.append([hangs, alike])
    return lines


def view(room: Playroom, state: PlaygroundState) -> Html:
    """The history, the beam, the recommendations with their reasons, and the ranking of the other run.

    Raises: ValueError for an unknown run or signal.
    """
    if state.against not in (NONE, *room.runs):
        raise ValueError(f"no run {state.against!r}: the runs are {', '.join(room.runs)}")
    unknown = set(state.off) - set(explanations.signal_names(room.main))
    if unknown:
        raise ValueError(
            f"no signal {', '.join(sorted(unknown))}: the signals are {explanations.signal_names(room.main)}"
        )
    if not state.history:
        return section("History", Html('<p class="bb-empty">The history is empty. Search above and add an item.</p>'))
    model, items = explanations.rescaled(room.main, off=state.off), room.items
    depths = explanations.unfold(model, state.history, state.width)
    shown = depths[: state.depth]
    read = min(len(state.history), model.model.config.max_events)
    cards = card_row(items, state.history, [str(t + 1) for t in range(len(state.history))])
    picture = beam_picture(shown, items.sizes, items.learned)
    title = f"Beam search, width {state.width}, {len(shown)} of {len(depths)} levels shown"
    about = "Each box shows a prefix of existing IDs, its probability and its number of items (history excluded)."
    switched = _switched(model, state.off)
    parts = [section(f"History, oldest first: the model reads {read} of {len(state.history)} events", cards)]
    parts += [section("Signals", switched)] if switched else []
    parts.append(section(title, about, picture))
    if len(shown) < len(depths):
        parts.append(text(Html("<p>Show all levels to see the recommendations.</p>")))
    else:
        parts.append(_recommended(room, model, state))
    return Html("".join(parts))


def _recommended(room: Playroom, model: Recommender, state: PlaygroundState) -> Html:
    """Cards of the items that the beam found, the reasons, and the same items in the other run."""
    items, known = room.items, set(state.history)
    ranks = explanations.ranking(explanations.all_scores(model, [state.history], known)[0])
    found = explanations.beam_items(model, state.history, state.width)
    notes = [f"exact rank {ranks[row]}" for row in found]
    reasons = _reasons(room, model, state.history, found)
    head = ["", "item", "event with the largest effect (probability → without it)", "longest shared prefix"]
    rows = [[place, items.titles[row], *why] for place, (row, why) in enumerate(zip(found, reasons, strict=True), 1)]
    parts = [section("Recommended, best first", card_row(items, found, notes, "The history contains every item."))]
    if state.against != NONE:
        run = room.runs[state.against]
        other = explanations.ranking(explanations.all_scores(run, [state.history], known)[0])
        head.append(f"rank in {state.against}")
        rows = [[*row, int(other[item])] for row, item in zip(rows, found, strict=True)]
        best = explanations.best(other, COMPARED)
        notes = [f"rank {ranks[row]} in this run" for row in best]
        parts.append(section(f"Top {COMPARED} of {state.against}", card_row(items, best, notes)))
    about = "The model runs again without each single event. The table names the event whose removal costs most."
    parts.insert(1, section("Why", about, table(head, rows)))
    return Html("".join(parts))


class Playground(Live):
    """The live view: search items, add and remove events, show level by level, switch signals off, compare runs.

    Args: room: the catalogue and runs. history: initial item rows.
    """

    def __init__(self, room: Playroom, history: Sequence[int] = ()) -> None:
        self.room = room
        levels = len(room.items.sizes)
        wide = {"style": LABEL, "layout": {"width": "300px"}}
        choices = [NONE, *list(room.runs)[1:]]
        controls = {
            "width": ipywidgets.IntSlider(min=1, max=12, description="beam width", **wide),
            "depth": ipywidgets.IntSlider(min=1, max=levels, description="levels shown", **wide),
            "against": ipywidgets.Dropdown(options=choices, description="compare with", style=LABEL),
        }
        self.search = ipywidgets.Text(description="search", placeholder="part of a title or an id", style=LABEL)
        self.hits = [ipywidgets.Button(layout={"width": "auto"}) for _ in range(HITS)]
        self.found: list[int] = []
        self.events = ipywidgets.HBox(layout={"flex_flow": "row wrap"})
        self.clear = ipywidgets.Button(description="clear history", icon="trash", layout={"width": "130px"})
        box = {"value": True, "indent": False, "layout": {"width": "90px"}}
        self.signals = {
            name: ipywidgets.Checkbox(description=name, **box) for name in explanations.signal_names(room.main)
        }
        caption = ipywidgets.Label("offsets of" if self.signals else "this run has no offsets")
        fixed = {"flex": "none"}
        above = [
            ipywidgets.HBox([self.search, self.clear]),
            ipywidgets.HBox([ipywidgets.Label("add", layout=fixed), *self.hits], layout={"flex_flow": "row wrap"}),
            ipywidgets.HBox([ipywidgets.Label("remove", layout=fixed), self.events]),
            ipywidgets.HBox([controls["width"], controls["depth"], controls["against"]]),
            ipywidgets.HBox([caption, *self.signals.values()]),
        ]
        state = PlaygroundState(tuple(map(int, history)), depth=levels)
        super().__init__("bb-playground", state, lambda s: view(room, s), controls, above)
        self._listen()

    def _listen(self) -> None:
        """Connect the controls that do not set a field directly."""
        board = self.board
        board.watch(self.search, self.look_up)
        board.press(self.clear, lambda: board.change(history=()))
        for place, button in enumerate(self.hits):
            board.press(button, lambda place=place: board.change(history=(*self.state.history, self.found[place])))
        for box in self.signals.values():
            board.watch(box, lambda _: board.change(off=tuple(n for n, each in self.signals.items() if not each.value)))
        self.look_up("")

    def look_up(self, words: str) -> None:
        """Show the search results as buttons, and their number in the status line."""
        self.found = self.room.find(words)
        for place, button in enumerate(self.hits):
            button.layout.display = None if place < len(self.found) else "none"
            if place < len(self.found):
                button.description = f"+ {self.room.items.titles[self.found[place]]}"
                button.tooltip = f"add {self.room.items.titles[self.found[place]]} to the history"
        shown = (
            f"The {len(self.found)} most popular matches." if len(self.found) == HITS else f"{len(self.found)} matches."
        )
        self.board.tell(shown if self.found else f"No title or id contains {words!r}.")

    def follow(self, state: PlaygroundState) -> None:
        """Set the controls, and show one button per event."""
        super().follow(state)
        names = [f"× {place} {self.room.items.titles[row]}" for place, row in enumerate(state.history, 1)]
        if names != [button.description for button in self.events.children]:
            self.events.children = [self._event(place, name) for place, name in enumerate(names)]

    def _event(self, place: int, name: str) -> ipywidgets.Button:
        """A button that removes one event from the history."""
        button = ipywidgets.Button(
            description=name, tooltip="remove this event from the history", layout={"width": "auto"}
        )

        def remove() -> None:
            kept = self.state.history
            self.board.change(history=kept[:place] + kept[place + 1 :])

        self.board.press(button, remove)
        return button
