"""All events in the order of time, cut into periods, and the catalogue as it grows."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64

from bbqrec_core import Sequences
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.datasets.time_split import TimeSplit, gathered, moments_of, need_global_time

DAY = 86_400
MOST_PERIODS = 8
_WITHHELD, _ASKED = 0, 1  # separate random streams under one seed


@dataclass(frozen=True, eq=False)
class Stream:
    """Events of all users in the order of time; the last `periods` of them are replayed.

    Items are numbered in the order in which they join the catalogue, so the catalogue of period p is rows
    1..`sizes[p]`. An item joins with the period of its first event, a withheld one at a stated moment.

    Args: sequences: the events by user, oldest first. order: their positions in the order of time. bounds: (P+1,),
        of periods in `order`; events before the first bound are known from the start. moments: (P+1,), seconds, the
        start of each period, and the end of the last. sizes: (P,), items of the catalogue. features, presence: of all
        items, as in `Dataset`, of the modalities that some item of the start has. withheld: whether an item was held
        back. rows: (N+1,), the item row of `source` of each item here. asked: whether a list is asked for before each
        event of `order`. share: of events before a moment that choose models.
    """

    source: NamedDataset
    sequences: Sequences
    order: Int64[np.ndarray, "events"]
    bounds: Int64[np.ndarray, "edges"]
    moments: Int64[np.ndarray, "edges"]
    sizes: Int64[np.ndarray, "P"]
    features: dict[str, Float32[np.ndarray, "rows _"]]
    presence: dict[str, Bool[np.ndarray, "rows"]]
    withheld: Bool[np.ndarray, "rows"]
    rows: Int32[np.ndarray, "rows"]
    asked: Bool[np.ndarray, "events"]
    share: float
    seed: int

    @property
    def periods(self) -> int:
        """P, the number of periods."""
        return len(self.sizes)

    @property
    def n_items(self) -> int:
        """N, all items that ever join."""
        return len(self.rows) - 1

    @property
    def joined(self) -> Int64[np.ndarray, "rows"]:
        """The period in which each item joins; 0 for those that are there from the start, -1 for the padding."""
        found = np.searchsorted(self.sizes, np.arange(self.n_items + 1))
        found[0] = -1
        return found

    def users(self, places: Int[np.ndarray, "Q"]) -> Int64[np.ndarray, "Q"]:
        """The user of the events at places of `order`."""
        return np.searchsorted(self.sequences.offsets, self.order[places], side="right") - 1

    def items(self, places: Int[np.ndarray, "Q"] | slice) -> Int32[np.ndarray, "Q"]:
        """The item row of the events at places of `order`."""
        return self.sequences.items[self.order[places]]

    def times(self, places: Int[np.ndarray, "Q"] | slice) -> Int64[np.ndarray, "Q"]:
        """The time in seconds of the events at places of `order`."""
        return self.sequences.times[self.order[places]]

    def asked_in(self, period: int) -> Int64[np.ndarray, "Q"]:
        """The places of a period before which a list is asked for."""
        start, stop = self.bounds[period : period + 2]
        return start + np.flatnonzero(self.asked[start:stop])

    def period_of(self, places: Int[np.ndarray, "Q"]) -> Int64[np.ndarray, "Q"]:
        """The period of places of `order`."""
        return np.searchsorted(self.bounds, places, side="right") - 1

    def histories(self, places: Int[np.ndarray, "Q"], known: int, frozen: bool = False) -> Sequences:
        """For each place the events of its user before it, of items that are in the catalogue.

        Args: known: items of the catalogue; events of later ones are left out. frozen: only events before the replay.
        """
        positions, offsets = self.order[places], self.sequences.offsets
        starts = offsets[self.users(places)]
        stops = np.minimum(positions, starts + self._before[self.users(places)]) if frozen else positions
        found = gathered(self.sequences, starts, stops - starts)
        keep = found.items <= known
        new_offsets = np.append(0, np.cumsum(keep))[found.offsets]
        items, times = (np.append(part[keep], part.dtype.type(0)) for part in found[1:])  # an index needs one entry
        return Sequences(new_offsets, items, times)

    @cached_property
    def _before(self) -> Int64[np.ndarray, "U"]:
        """Events of each user before the replay."""
        early = self.users(np.arange(self.bounds[0]))
        return np.bincount(early, minlength=len(self.sequences.offsets) - 1)

    def known_before(self, period: int) -> TimeSplit:
        """What can be learned from before a period: events so far, of the catalogue of the period before it.

        The last `share` of these events choose models; of period 0 it is the catalogue of period 0.
        """
        size, until = int(self.sizes[max(period - 1, 0)]), int(self.moments[period])
        offsets, items, times = self.sequences
        keep = (times < until) & (items <= size)
        early = Sequences(np.append(0, np.cumsum(keep))[offsets], items[keep], times[keep])
        (valid_from,) = moments_of(early.times, [1 - self.share])
        arrays = {name: array[: size + 1] for name, array in self.features.items()}
        there = {name: array[: size + 1] for name, array in self.presence.items()}
        return TimeSplit(
            n_items=size,
            sequences=early,
            features=arrays,
            presence=there,
            valid_from=valid_from,
            test_from=until,
            seed=self.seed,
        )


def make_stream(
    data: NamedDataset,
    periods: int = 8,
    start: float = 0.8,
    withheld: float = 0.1,
    until: int = 1,
    most_asked: int = 0,
    seed: int = 0,
) -> Stream:
    """Order the events of a dataset by time, and cut those after the share `start` into periods of equal size.

    Args: withheld: share of the items, drawn by `seed`, that are held back: they join at the start of period `until`,
        and their events before it never happen. most_asked: at most so many lists are asked for in a period, before
        events that `seed` draws; 0 asks before every event.
    Raises: ValueError for times that are only positions, for wrong numbers, or if events are too few for the periods.
    Choice: events of one second keep the order of their users; a period begins at a moment, so equal times stay
        together. An item without an event is in the catalogue from the start.
    """
    if not 1 <= periods <= MOST_PERIODS or not 0 <= until < periods or not 0 <= withheld < 1 or not 0 < start < 1:
        raise ValueError(
            f"need 1 to {MOST_PERIODS} periods, `until` among them, and shares below 1, "
            f"got {periods=}, {until=}, {withheld=}, {start=}"
        )
    need_global_time(data)
    times, items = data.timestamps, data.sequences.items
    shares = list(np.linspace(start, 1, periods + 1)[:-1])
    moments = np.append(moments_of(times, shares), times.max() + 1)
    if (np.diff(moments) <= 0).any():
        raise ValueError(f"{data.name}: too few distinct times for {periods} periods: ask for fewer")
    held = np.zeros(data.n_items + 1, bool)
    drawn = np.random.default_rng((seed, _WITHHELD)).permutation(data.n_items) + 1
    held[drawn[: round(withheld * data.n_items)]] = True
    keep = ~held[items] | (times >= moments[until])
    first = np.full(data.n_items + 1, moments[0] - 1)
    by_time = np.flatnonzero(keep)[np.argsort(-times[keep], kind="stable")]
    first[items[by_time]] = times[by_time]  # the earliest event is written last
    joins = np.clip(np.searchsorted(moments, first, side="right") - 1, 0, None)
    joins[held] = np.maximum(joins[held], until)
    rows = np.append(0, np.argsort(joins[1:], kind="stable") + 1).astype(np.int32)
    here = np.empty_like(rows)
    here[rows] = np.arange(len(rows), dtype=np.int32)
    offsets = np.append(0, np.cumsum(keep))[data.sequences.offsets]
    sequences = Sequences(offsets, here[items[keep]], times[keep])
    order = np.argsort(sequences.times, kind="stable")
    bounds = np.searchsorted(sequences.times[order], moments)
    sizes = np.searchsorted(joins[rows[1:]], np.arange(periods), side="right")
    begun = [name for name, array in data.presence.items() if array[rows[: sizes[0] + 1]].any()]
    return Stream(
        source=data,
        sequences=sequences,
        order=order,
        bounds=bounds,
        moments=moments,
        sizes=sizes,
        features={name: data.features[name][rows] for name in begun},
        presence={name: data.presence[name][rows] for name in begun},
        withheld=held[rows],
        rows=rows,
        asked=_asked(bounds, most_asked, len(order), seed),
        share=0.1,
        seed=seed,
    )


def _asked(bounds: Int64[np.ndarray, "edges"], most: int, events: int, seed: int) -> Bool[np.ndarray, "events"]:
    """Whether a list is asked for before each event: at most `most` in a period, all if it is 0."""
    found, rng = np.zeros(events, bool), np.random.default_rng((seed, _ASKED))
    for start, stop in pairwise(bounds.tolist()):
        size = stop - start
        found[start + rng.permutation(size)[: min(most or size, size)]] = True
    return found
