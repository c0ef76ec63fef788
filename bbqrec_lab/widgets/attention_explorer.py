"""Attention explorer: a user's attention without and with the offsets, and what their strength does to the ranking."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import ipywidgets
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec_core import Recommender, Sequences
from bbqrec_core.recommender.similarity_bias import mark
from bbqrec_lab.analysis import explanations
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.widgets.html_cards import Catalogue, Html, card_row, code_colour, section, text
from bbqrec_lab.widgets.state_board import LABEL, Live

SHOWN = 8  # recommendations
FEWEST, MOST = 2, 20  # events that a map can hold
SPECIAL = ("itself", "missing", "padding")
STYLE = Html("""<style>
.bb table.bb-heat { width: auto; border-collapse: separate; border-spacing: 1px; font-size: 10px; }
.bb table.bb-heat td, .bb table.bb-heat th { padding: 0; min-width: 22px; height: 21px; text-align: center;
  vertical-align: middle; border: 0; font-variant-numeric: tabular-nums; }
.bb table.bb-heat th { font-weight: 400; color: var(--jp-ui-font-color2, #555); }
.bb table.bb-heat th[scope=row] { text-align: right; padding-right: 5px; white-space: nowrap; }
.bb-maps figure { margin: 0; }
.bb-maps { display: flex; flex-wrap: wrap; gap: 14px; align-items: flex-start; }
.bb-ramp { display: inline-block; width: 120px; height: 10px; vertical-align: middle; margin: 0 6px; }
</style>""")


@dataclass(frozen=True, eq=False)
class Subject:
    """Whose attention is looked at, and by which model.

    Args: items: the catalogue. recommender: with reweighting. users: their ids as text, (U,). history: what the model
        may read of each. targets: the item each really chose next, (U,).
    Raises: ValueError for a model without reweighting, or one that reads codes.
    """

    items: Catalogue
    recommender: Recommender
    users: tuple[str, ...]
    history: Sequences
    targets: Int[np.ndarray, "U"]

    def __post_init__(self) -> None:
        if explanations.readable(self.recommender).model.reweighting is None:
            raise ValueError("this model has no offsets to explore: choose a run with reweight=True")

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Row of each user id."""
        return {name: row for row, name in enumerate(self.users)}

    def rows_of(self, user: str) -> list[int]:
        """A user's history as item rows, oldest first.

        Raises: ValueError for an unknown id.
        """
        if user not in self.numbers:
            some = ", ".join(self.users[:3])
            raise ValueError(f"no user {user!r}: there are {len(self.users)}, for example {some}")
        row = self.numbers[user]
        return self.history.items[self.history.offsets[row] : self.history.offsets[row + 1]].tolist()


def subject(items: Catalogue, recommender: Recommender, data: NamedDataset) -> Subject:
    """The users of a dataset at their test history, under one recommender."""
    return Subject(items, recommender, tuple(map(str, data.users)), data.history("test"), data.targets("test"))


@dataclass(frozen=True)
class ExplorerState:
    """What is chosen: user id, how many last events the model reads, layer and head from 1, channel, offsets' scale.

    Raises: ValueError for a scale outside 0 .. 2 or fewer than two events.
    """

    user: str
    events: int = 10
    layer: int = 1
    head: int = 1
    channel: str = ""
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= 2 or self.events < FEWEST:
            raise ValueError(f"want a scale from 0 to 2 and 2 events or more, got {self.scale:g} and {self.events}")


class Seen(NamedTuple):
    """What a state comes to: the events read (item rows, T), attention of the chosen head with zero offsets and with
    scaled ones (T, T), and the ranks of every item row with the offsets as trained and as scaled."""

    rows: list[int]
    before: Float[Tensor, "T T"]
    after: Float[Tensor, "T T"]
    trained: Int[np.ndarray, "rows"]
    ranks: Int[np.ndarray, "rows"]


def look(which: Subject, state: ExplorerState) -> Seen:
    """Ask the model for a state; scale 1 gives its own attention and scores, bit for bit.

    Raises: ValueError for an unknown user, layer or head.
    """
    whole, config = which.rows_of(state.user), which.recommender.model.config
    if not (1 <= state.layer <= config.layers and 1 <= state.head <= config.heads):
        raise ValueError(f"no layer {state.layer}, head {state.head}: there are {config.layers} and {config.heads}")
    rows = whole[-min(state.events, config.max_events) :]
    models = {scale: explanations.rescaled(which.recommender, scale) for scale in {0.0, 1.0, state.scale}}
    before, after = (
        explanations.attention(models[scale], rows)[state.layer - 1, state.head - 1] for scale in (0.0, state.scale)
    )
    ranks = {
        scale: explanations.ranking(explanations.all_scores(models[scale], [rows], set(whole))[0])
        for scale in {1.0, state.scale}
    }
    return Seen(rows, before, after, ranks[1.0], ranks[state.scale])


@lru_cache(maxsize=1024)
def _shade(step: int, steps: int) -> str:
    back, letters = code_colour(step, steps)
    return f"background:{back};color:{letters}"


def heat_table(
    title: str, cells: Sequence[Sequence[tuple[float, str, str]]], rows: Sequence[object], columns: Sequence[object]
) -> Html:
    """A lower triangle as a table of coloured cells, a title above.

    Args: cells: by row: (0 .. 1 on the colour scale, what is written, what a pointer is told).
    """
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    body = ""
    for name, line in zip(rows, cells, strict=True):
        shown = "".join(
            f'<td style="{_shade(round(255 * min(max(share, 0), 1)), 256)}" title="{text(told)}">{text(written)}</td>'
            for share, written, told in line
        )
        body += f'<tr><th scope="row">{text(name)}</th>{shown}</tr>'
    drawn = f'<table class="bb-heat"><tr><th></th>{head}</tr>{body}</table>'
    return Html(f"<figure><figcaption><b>{text(title)}</b></figcaption>{drawn}</figure>")


def _weight_map(title: str, weights: Tensor, top: float, names: Sequence[object], labels: Sequence[str]) -> Html:
    """Attention weights in hundredths, on the scale that both maps share; the first event sees itself alone: no row."""
    cells = [
        [(w / top, f"{100 * w:.0f}", f"{labels[i]} gives {labels[j]} {w:.4f}") for j, w in enumerate(line[: i + 1])]
        for i, line in enumerate(weights.tolist())
    ]
    return heat_table(title, cells[1:], names[1:], range(1, len(names) + 1))


def _bucket_map(which: Subject, state: ExplorerState, seen: Seen, labels: Sequence[str]) -> Html:
    """Bucket of each pair in the chosen channel, with its cosine and learned offset for the pointer."""
    rule, item_ids = which.recommender.model.reweighting, torch.tensor([seen.rows])
    names = [channel.name for channel in rule.channels]
    channel = names.index(state.channel) if state.channel in names else 0
    cosine, special = rule.compare(item_ids, item_ids)
    special = mark(torch.full_like(cosine, -1, dtype=torch.int8), special, 0)
    learned = rule.table.detach()[state.layer - 1, channel, :, state.head - 1] * state.scale
    binned = hasattr(rule, "buckets")  # the linear form has a slope instead
    bucket = rule.bucket_ids(item_ids)[channel, 0] if binned else None
    cells = []
    for i, (line, kinds) in enumerate(zip(cosine[channel, 0].tolist(), special[channel, 0].tolist(), strict=True)):
        cells.append([])
        for j, (value, kind) in enumerate(zip(line[: i + 1], kinds, strict=False)):
            if binned:
                number = int(bucket[i, j])
                offset, share = float(learned[number]), number / (rule.buckets - 1)
            else:
                offset, share = float(learned[1 + kind] if kind >= 0 else learned[0] * value), (value + 1) / 2
            met = f"cosine {value:.2f}" if kind < 0 else SPECIAL[kind]
            written = ("=", "–", "")[kind] if kind >= 0 else f"{number}" if binned else f"{value:.1f}"
            told = f"{labels[i]} with {labels[j]}: {met}, offset {offset:+.3f} logits"
            cells[-1].append((share if kind < 0 else 0.5, written, told))
    unit = f"bucket, 0 least to {rule.buckets - 1} most alike" if binned else "cosine"
    return heat_table(f"{names[channel]}: {unit}", cells[1:], range(2, len(cells) + 1), range(1, len(cells) + 1))


def _change(now: int, then: int) -> str:
    """A rank, and where it was before if it moved."""
    return f"rank {now} (same)" if now == then else f"rank {then} → {now} {'▲' if now < then else '▼'}"


def _ranked(which: Subject, state: ExplorerState, seen: Seen) -> Html:
    """The best items now, each with its change of rank against the offsets as trained, and who left the list."""
    now, then = explanations.best(seen.ranks, SHOWN), explanations.best(seen.trained, SHOWN)
    notes = [_change(int(seen.ranks[row]), int(seen.trained[row])) for row in now]
    gone = [f"{which.items.titles[row]} ({seen.trained[row]} → {seen.ranks[row]})" for row in then if row not in now]
    left = (
        f"Left the first {SHOWN}: {', '.join(gone)}." if gone else f"None of the trained first {SHOWN} left the list."
    )
    target = int(which.targets[which.numbers[state.user]])
    if seen.ranks[target]:
        chosen = f"What this user really chose next, {which.items.titles[target]}: "
        left += f" {chosen}{_change(int(seen.ranks[target]), int(seen.trained[target]))}."
    title = f"Recommendations with the offsets times {state.scale:.2f}, against times 1; the user's items are left out"
    return section(title, card_row(which.items, now, notes), left)


def view(which: Subject, state: ExplorerState) -> Html:
    """The events read as cards, attention before and after on one scale, buckets, and the recommendations."""
    seen = look(which, state)
    titles = [which.items.titles[row] for row in seen.rows]
    labels = [f"{t + 1} {title}" for t, title in enumerate(titles)]
    names = [label if len(label) < 20 else label[:19] + "…" for label in labels]
    top = max(float(seen.before[1:].max()), float(seen.after[1:].max()))
    moved = float((seen.after[-1] - seen.before[-1]).abs().sum()) / 2
    last = zip(seen.before[-1].tolist(), seen.after[-1].tolist(), strict=True)
    notes = [f"{t + 1}: {100 * b:.0f} % → {100 * a:.0f} %" for t, (b, a) in enumerate(last)]
    ramp = ",".join(code_colour(step, 9)[0] for step in range(9))
    legend = Html(
        f'<p>weight in hundredths, one scale for both: 0<span class="bb-ramp" style="background:linear-gradient(90deg,'
        f'{ramp})"></span>{100 * top:.0f}. Rows attend, columns are attended; rows sum to 100. In the third table = is '
        "an event with itself and – a missing signal; point at a cell for its cosine and its learned offset.</p>"
    )
    maps = (
        _weight_map("before: offsets times 0", seen.before, top, names, labels)
        + _weight_map(f"after: offsets times {state.scale:.2f}", seen.after, top, range(1, len(names) + 1), labels)
        + _bucket_map(which, state, seen, labels)
    )
    read = f"The last {len(seen.rows)} events of user {state.user}, and the last event's attention before → after"
    where = f"layer {state.layer}, head {state.head}"
    return Html(
        STYLE
        + section(read, card_row(which.items, seen.rows, notes))
        + section(f"Attention of {where}", Html(f'<div class="bb-maps">{maps}</div>'), legend)
        + text(Html(f"<p>The offsets move {100 * moved:.1f} % of the last event's weight in this head.</p>"))
        + _ranked(which, state, seen)
    )


class AttentionExplorer(Live):
    """The live view: choose user, events, layer, head and channel, and move the scale of the offsets.

    Args: which: of `subject`. state: what is shown first; the first user where it is left out.
    """

    def __init__(self, which: Subject, state: ExplorerState | None = None) -> None:
        self.which = which
        model = which.recommender.model
        channels = [channel.name for channel in model.reweighting.channels]
        start = state or ExplorerState(which.users[0])
        start = replace(start, channel=start.channel or channels[0])
        wide, small = {"style": LABEL, "layout": {"width": "330px"}}, {"style": LABEL, "layout": {"width": "150px"}}
        most = max(min(MOST, model.config.max_events), FEWEST)
        controls = {
            "user": ipywidgets.Text(description="user id", continuous_update=False, **small),
            "events": ipywidgets.IntSlider(min=FEWEST, max=most, description="last events", **wide),
            "layer": ipywidgets.Dropdown(options=range(1, model.config.layers + 1), description="layer", **small),
            "head": ipywidgets.Dropdown(options=range(1, model.config.heads + 1), description="head", **small),
            "channel": ipywidgets.Dropdown(options=channels, description="buckets of", style=LABEL),
            "scale": ipywidgets.FloatSlider(min=0, max=2, step=0.1, description="offsets times", **wide),
        }
        self.earlier = ipywidgets.Button(description="previous user", layout={"width": "120px"})
        self.later = ipywidgets.Button(description="next user", layout={"width": "120px"})
        above = [
            ipywidgets.HBox([controls["user"], self.earlier, self.later, controls["events"]]),
            ipywidgets.HBox([controls["layer"], controls["head"], controls["channel"], controls["scale"]]),
        ]
        super().__init__("bb-explorer", start, lambda s: view(which, s), controls, above)
        self.board.press(self.earlier, lambda: self._walk(-1))
        self.board.press(self.later, lambda: self._walk(1))

    def _walk(self, step: int) -> None:
        """To the user before or after, round the end."""
        here = self.which.numbers.get(self.state.user, 0)
        self.board.change(user=self.which.users[(here + step) % len(self.which.users)])
