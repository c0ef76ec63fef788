"""Attention explorer: attention of one user without and with offsets, and the effect of their scale on the ranking."""

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

SHOWN = 8  # recommendations on display
FEWEST, MOST = 2, 20  # events in a map
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
    """The users and the model that the explorer shows.

    Args: items: the catalogue. recommender: with reweighting. users: user ids as text, (U,). history: the events that
        the model may read, per user. targets: the true next item per user, (U,).
    Raises: ValueError for a model without reweighting, or a model that reads codes.
    """

    items: Catalogue
    recommender: Recommender
    users: tuple[str, ...]
    history: Sequences
    targets: Int[np.ndarray, "U"]

    def __post_init__(self) -> None:
        if explanations.readable(self.recommender).model.reweighting is None:
            raise ValueError("this model has no offsets: choose a run with reweight=True")

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Row of each user id."""
        return {name: row for row, name in enumerate(self.users)}

    def rows_of(self, user: str) -> list[int]:
        """The history of a user as item rows, oldest first.

        Raises: ValueError for an unknown id.
        """
        if user not in self.numbers:
            some = ", ".join(self.users[:3])
            raise ValueError(f"no user {user!r}: there are {len(self.users)} users, for example {some}")
        row = self.numbers[user]
        return self.history.items[self.history.offsets[row] : self.history.offsets[row + 1]].tolist()


def subject(items: Catalogue, recommender: Recommender, data: NamedDataset) -> Subject:
    """Return the users of a dataset with their test histories, for one recommender."""
    return Subject(items, recommender, tuple(map(str, data.users)), data.history("test"), data.targets("test"))


@dataclass(frozen=True)
class ExplorerState:
    """The choices: user id, number of last events, layer and head (from 1), channel, and scale of the offsets.

    Raises: ValueError for a scale outside [0, 2] or fewer than 2 events.
    """

    user: str
    events: int = 10
    layer: int = 1
    head: int = 1
    channel: str = ""
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= 2 or self.events < FEWEST:
            raise ValueError(f"need a scale from 0 to 2 and at least 2 events, got {self.scale:g} and {self.events}")


class Seen(NamedTuple):
    """The model output for a state: the events read (item rows, T), attention of the chosen head with zero offsets and
    with scaled offsets (T, T), and the rank of every item row with the trained and with the scaled offsets."""

    rows: list[int]
    before: Float[Tensor, "T T"]
    after: Float[Tensor, "T T"]
    trained: Int[np.ndarray, "rows"]
    ranks: Int[np.ndarray, "rows"]


def look(which: Subject, state: ExplorerState) -> Seen:
    """Run the model for a state; scale 1 returns the attention and scores of the trained model, bit for bit.

    Raises: ValueError for an unknown user, layer or head.
    """
    whole, config = which.rows_of(state.user), which.recommender.model.config
    if not (1 <= state.layer <= config.layers and 1 <= state.head <= config.heads):
        raise ValueError(
            f"no layer {state.layer}, head {state.head}: the model has {config.layers} layers and {config.heads} heads"
        )
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
    """Draw a lower triangle as a table of coloured cells with a title.

    Args: cells: per row: (colour in [0, 1], text of the cell, tooltip).
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
    """Attention weights in percent, on one scale for both maps. The first event attends only to itself: no row."""
    cells = [
        [
            (w / top, f"{100 * w:.0f}", f"{labels[i]} attends to {labels[j]}: {w:.4f}")
            for j, w in enumerate(line[: i + 1])
        ]
        for i, line in enumerate(weights.tolist())
    ]
    return heat_table(title, cells[1:], names[1:], range(1, len(names) + 1))


def _bucket_map(which: Subject, state: ExplorerState, seen: Seen, labels: Sequence[str]) -> Html:
    """Bucket of each pair in the chosen channel; the tooltip has its cosine and learned offset."""
    rule, item_ids = which.recommender.model.reweighting, torch.tensor([seen.rows])
    names = [channel.name for channel in rule.channels]
    channel = names.index(state.channel) if state.channel in names else 0
    cosine, special = rule.compare(item_ids, item_ids)
    special = mark(torch.full_like(cosine, -1, dtype=torch.int8), special, 0)
    learned = rule.table.detach()[state.layer - 1, channel, :, state.head - 1] * state.scale
    binned = rule.buckets > 1  # the linear form has a slope instead
    bucket = rule.bucket_ids(item_ids)[channel, 0] if binned else None
    cells = []
    for i, (line, kinds) in enumerate(zip(cosine[channel, 0].tolist(), special[channel, 0].tolist(), strict=True)):
        cells.append([])
        for j, (value, kind) in enumerate(zip(line[: i + 1], kinds, strict=False)):
            if binned:
                number = int(bucket[i, j])
                offset, share, written = float(learned[number]), number / (rule.buckets - 1), f"{number}"
            else:
                offset = float(learned[1 + kind] if kind >= 0 else learned[0] * value)
                share, written = (value + 1) / 2, f"{value:.1f}"
            if kind >= 0:
                written = ("=", "–", "")[kind]
            met = f"cosine {value:.2f}" if kind < 0 else SPECIAL[kind]
            told = f"{labels[i]} with {labels[j]}: {met}, offset {offset:+.3f} logits"
            cells[-1].append((share if kind < 0 else 0.5, written, told))
    unit = f"bucket, from 0 (least similar) to {rule.buckets - 1} (most similar)" if binned else "cosine"
    return heat_table(f"{names[channel]}: {unit}", cells[1:], range(2, len(cells) + 1), range(1, len(cells) + 1))


def _change(now: int, then: int) -> str:
    """A rank, with the earlier rank if it changed."""
    if now == then:
        return f"rank {now} (same)"
    return f"rank {then} → {now} {'▲' if now < then else '▼'}"


def _ranked(which: Subject, state: ExplorerState, seen: Seen) -> Html:
    """The top items with scaled offsets, their change of rank against the trained offsets, and the items that left.

    With score reweighting, each card has the offset of the item's score; the scale of attention does not change it.
    """
    now, then = explanations.best(seen.ranks, SHOWN), explanations.best(seen.trained, SHOWN)
    notes = [text(_change(int(seen.ranks[row]), int(seen.trained[row]))) for row in now]
    offsets, about = explanations.score_offsets(which.recommender, seen.rows), []
    if offsets is not None:
        notes = [Html(f"{note}<br>offset {offsets[row]:+.2f}") for note, row in zip(notes, now, strict=True)]
        about = ["The offset is that of score reweighting after these events, in nats; the scale does not change it."]
    gone = [f"{which.items.titles[row]} ({seen.trained[row]} → {seen.ranks[row]})" for row in then if row not in now]
    left = f"No longer in the top {SHOWN}: {', '.join(gone)}." if gone else f"The top {SHOWN} contains the same items."
    target = int(which.targets[which.numbers[state.user]])
    if seen.ranks[target]:
        chosen = f"The true next item of this user, {which.items.titles[target]}: "
        left += f" {chosen}{_change(int(seen.ranks[target]), int(seen.trained[target]))}."
    title = f"Recommendations at offset scale {state.scale:.2f}, compared with scale 1 (items of the history excluded)"
    return section(title, card_row(which.items, now, notes), left, *about)


def view(which: Subject, state: ExplorerState) -> Html:
    """The events as cards, attention before and after on one colour scale, buckets, and the recommendations."""
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
        f'<p>Attention weight in percent, one colour scale for both maps: 0<span class="bb-ramp" '
        f'style="background:linear-gradient(90deg,{ramp})"></span>{100 * top:.0f}. Rows are queries, columns are keys; '
        "each row sums to 100. In the third table, = marks an event with itself and – a missing signal. Hover over a "
        "cell for its cosine and learned offset.</p>"
    )
    maps = (
        _weight_map("before: offset scale 0", seen.before, top, names, labels)
        + _weight_map(f"after: offset scale {state.scale:.2f}", seen.after, top, range(1, len(names) + 1), labels)
        + _bucket_map(which, state, seen, labels)
    )
    read = f"The last {len(seen.rows)} events of user {state.user}, with the last event's attention, before → after"
    where = f"layer {state.layer}, head {state.head}"
    return Html(
        STYLE
        + section(read, card_row(which.items, seen.rows, notes))
        + section(f"Attention of {where}", Html(f'<div class="bb-maps">{maps}</div>'), legend)
        + text(Html(f"<p>The offsets move {100 * moved:.1f} % of the last event's attention weight in this head.</p>"))
        + _ranked(which, state, seen)
    )


class AttentionExplorer(Live):
    """The live view: choose user, events, layer, head and channel, and the scale of the offsets.

    Args: which: from `subject`. state: the initial state; by default, the first user.
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
            "events": ipywidgets.IntSlider(min=FEWEST, max=most, description="number of events", **wide),
            "layer": ipywidgets.Dropdown(options=range(1, model.config.layers + 1), description="layer", **small),
            "head": ipywidgets.Dropdown(options=range(1, model.config.heads + 1), description="head", **small),
            "channel": ipywidgets.Dropdown(options=channels, description="channel", style=LABEL),
            "scale": ipywidgets.FloatSlider(min=0, max=2, step=0.1, description="offset scale", **wide),
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
        """Go to the previous or next user; after the last user comes the first."""
        here = self.which.numbers.get(self.state.user, 0)
        self.board.change(user=self.which.users[(here + step) % len(self.which.users)])
