"""Score reweighting: a learned offset of a candidate's score per bucket of how much it is like the history."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from ..config import RecommenderConfig
from ..dataset import Dataset, Sequences
from .code_embeddings import CodeVectors

REACH, CLOSER, BACKWARD = 20, 0.9, 0.5  # events a pair may lie apart; weight per step; weight of the reverse order
PRIOR = 10.0  # events added to those of an item
DECAYS = (0.5, 0.8, 0.8)  # weight of an event of the history per step back: two channels of pairs, one of content
SHARPER = 3.0  # power of the cosine of content
HORIZON = 16  # last events of the history that give mass
Places = tuple[Int[Tensor, "_"], Int[Tensor, "_"]]  # training positions, ascending, and items or nodes there


def count_pairs(
    train: Sequences, n_items: int, keep: int
) -> tuple[Int[Tensor, "N keep"], Float[Tensor, "N keep"], Int[Tensor, "N"]]:
    """Count for every item row the items that come with it in training histories.

        n_ij = sum over pairs of events i, j of a user, up to REACH apart: CLOSER^(gap - 1), x BACKWARD if j is first

    Returns: the `keep` best partners of every item by n_ij / sqrt(u_j + PRIOR), ascending and padded with 0; their
        n_ij; and u_i, the training events of every item.
    """
    items, wide = torch.from_numpy(train.items).long(), n_items + 1
    owner = torch.repeat_interleave(torch.from_numpy(train.offsets).diff())
    total = torch.sparse_coo_tensor(size=(wide * wide,), check_invariants=False).coalesce()
    for gap in range(1, REACH + 1):
        same = owner[gap:] == owner[:-gap]
        first, then = items[:-gap][same], items[gap:][same]
        pair = torch.cat([first * wide + then, then * wide + first])[None]
        weight = torch.tensor([1.0, BACKWARD]).repeat_interleave(len(first)) * CLOSER ** (gap - 1)
        found = torch.sparse_coo_tensor(pair, weight, (wide * wide,), check_invariants=False).coalesce()
        total = (total + found).coalesce()
    row, partner, count = total.indices()[0] // wide, total.indices()[0] % wide, total.values()
    users = torch.bincount(items, minlength=wide)
    row, partner, count = (part[row != partner] for part in (row, partner, count))
    order = (count * weight_of(users[partner])).argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    size = torch.bincount(row, minlength=wide)
    place = torch.arange(len(row)) - (size.cumsum(0) - size)[row]
    order, row, place = order[place < keep], row[place < keep], place[place < keep]
    partners, counts = torch.zeros(wide, keep, dtype=torch.long), torch.zeros(wide, keep)
    partners[row, place], counts[row, place] = partner[order], count[order]
    partners, order = partners.sort(1)
    return partners, counts.gather(1, order), users


def compare_content(data: Dataset, keep: int) -> tuple[Int[Tensor, "N keep"], Float[Tensor, "N keep"]]:
    """The `keep` items most like each item row by their features, and max(cosine, 0)^SHARPER; 0 pads.

    Choice: features of all modalities together, each centred and of length 1, so that the cosine is a mean over them.
        Time grows with N^2.
    """
    vectors = torch.zeros(data.n_items + 1, 0)
    for name, present in data.presence.items():
        values, real = torch.from_numpy(data.features[name]), torch.from_numpy(present)
        centred = (values - values[real].mean(0)) * real[:, None]
        vectors = torch.cat([vectors, F.normalize(centred, dim=1)], 1)
    vectors, found = F.normalize(vectors, dim=1), []
    for rows in torch.arange(len(vectors)).split(1024):
        found.append((vectors[rows] @ vectors.T).scatter(1, rows[:, None], 0).clamp_min(0).topk(keep))
    return torch.cat([part.indices for part in found]), torch.cat([part.values for part in found]) ** SHARPER


def weight_of(events: Shaped[Tensor, "*items"]) -> Float[Tensor, "*items"]:
    """The factor of an item in s_ij: 1 / sqrt(u + PRIOR)."""
    return (events + PRIOR).rsqrt()


class ScoreBias(nn.Module):
    """Add a learned offset to the scores of items and of prefixes, by how much they are like the history's items.

        s_ij = n_ij / sqrt((u_i + PRIOR)(u_j + PRIOR))                           n, u of `count_pairs`; two channels
        s_ij = max(cosine of the features of i and j, 0)^SHARPER                 the third channel
        mass_c[j] = sum over the last HORIZON events i: DECAYS[c]^back(i) s_ij   back = 0 for the last event
        x_c[j] = (log mass_c[j] - low_c) / width_c                               its floor is the bucket
        offset[j] = sum over c of slope_c x_c[j] + curve_c[bucket]
        offset[node] = log sum of exp(offset[j]) - weight log n                  over the n items j below the node
        score = weight (logit of the transformer) + offset                       of items, and of codes by their node

    Items of the history have mass 0 and the offset `seen`, which learns with the transformer; so have nodes with no
    other items below. A mass below the first bucket gives no offset. The slope reaches masses that training never saw;
    curves correct it, and decay towards 0. At weight 0, IDs are as probable as the offsets of their items say; at
    weight 1, the logit of a node counts its items already.

    Args: n_items: N. config: settings. node: (N+1, sid_len), the node of every item row at each depth; None for a
        model that generates no IDs.
    Source: ours, the dual of similarity reweighting; counts as of item-item neighbours with order. Zero tables change
        nothing. Choice: frozen features are compared, since quantized ones gained nothing; items give mass, since
        counts of their prefixes gained nothing; no offset for popularity, which the transformer has (docs/design).
    """

    def __init__(self, n_items: int, config: RecommenderConfig, node: Int[Tensor, "N L"] | None = None) -> None:
        super().__init__()
        channels = len(DECAYS) if config.score_reweight else 0
        self.buckets, keep = config.score_buckets, min(config.partners, n_items) if channels else 0
        for name in ("partners", "alike"):
            self.register_buffer(name, torch.zeros(n_items + 1, keep, dtype=torch.int32))
        for name in ("counts", "cosines"):  # of the partners, and of the items that are alike
            self.register_buffer(name, torch.zeros(n_items + 1, keep))
        self.register_buffer("events", torch.zeros(n_items + 1))
        self.register_buffer("edges", torch.tensor([[0.0, 1.0]] * channels))  # log of the lowest edge, width of buckets
        self.register_buffer("trust", torch.ones(()))
        self.register_buffer("node", node, persistent=False)
        self.nodes = [] if node is None else (node.amax(0) + 1).tolist()  # of each depth
        depths = 1 + len(self.nodes)  # the first is that of items
        self.table = nn.Parameter(torch.zeros(channels, self.buckets))  # nats
        self.slope = nn.Parameter(torch.zeros(channels))  # nats per bucket
        self.seen = nn.Parameter(torch.zeros(depths))  # nats

    @torch.no_grad()
    def observe(self, data: Dataset) -> None:
        """Count the pairs of training histories, compare the features, and cut the buckets."""
        found = *count_pairs(data.train(), data.n_items, keep := self.partners.shape[1]), *compare_content(data, keep)
        for name, values in zip(("partners", "counts", "events", "alike", "cosines"), found, strict=True):
            getattr(self, name).copy_(values)
        pairs = weight_of(self.events)[:, None] * self._to_partners()
        for edges, values in zip(self.edges, (pairs, pairs, self.cosines), strict=True):
            logs = values[values > 0].log().sort().values
            if len(logs):
                low = logs[len(logs) // 50]
                edges.copy_(torch.stack([low, (logs[-1] + 1 - low) / self.buckets]))

    def _to_partners(self) -> Float[Tensor, "N keep"]:
        """n_ij / sqrt(u_j + PRIOR) of every item's partners."""
        return self.counts * weight_of(self.events)[self.partners.long()]

    def masses(
        self, rows: Int[Tensor, "B T"], later: Int[Tensor, "B R"] | None = None
    ) -> tuple[list[Float[Tensor, "B rows"]], Bool[Tensor, "B rows"]]:
        """Mass of every item row per channel (B, N+1) after histories, and the items of the histories.

        Args: rows: events, 0 pads on the right. later: in training, the events that follow; the pairs of the user's own
            events leave the counts, because at test time those with the target are not among them.
        """
        back = torch.arange(HORIZON, device=rows.device)
        place = (rows > 0).sum(1, keepdim=True) - 1 - back  # (B, HORIZON), from the last event backwards
        recent, own = rows.gather(1, place.clamp_min(0)), 0 if later is None else 1
        weight = torch.where(place >= 0, weight_of(self.events[recent] - own), 0)[..., None]
        empty, masses = self.counts.new_zeros(len(rows), len(self.events)), []
        seen = empty.scatter(1, rows, 1).index_fill(1, rows.new_zeros(1), 0).bool()
        by_pairs = self.partners[recent], weight * self._to_partners()[recent]
        by_content = self.alike[recent], (place >= 0)[..., None] * self.cosines[recent]
        own_pairs = None if later is None else weight * self._own_pairs(recent, later)  # the same for both channels
        channels = zip(DECAYS, (by_pairs, by_pairs, by_content), self.edges, strict=False)  # no edges: no channels
        for decay, (partners, values), (low, _) in channels:
            steps = (decay**back)[:, None]
            mass = empty.scatter_add(1, partners.long().flatten(1), (steps * values).flatten(1))
            if own_pairs is not None and values is by_pairs[1]:
                mass = mass.scatter_add(1, later, -(steps * own_pairs).sum(1))
            masses.append(mass.masked_fill(seen | (mass < low.exp()), 0))
        return masses, seen

    def _own_pairs(self, recent: Int[Tensor, "B H"], later: Int[Tensor, "B R"]) -> Float[Tensor, "B H R"]:
        """What the pairs of a recent and a later event of one user add to `counts` x factor of the later item."""
        partners = self.partners[recent].long()  # ascending
        wanted = later[:, None].expand(-1, recent.shape[1], -1).contiguous()
        found = torch.searchsorted(partners, wanted).clamp_max(partners.shape[2] - 1)
        count = self.counts[recent].gather(2, found) * (partners.gather(2, found) == wanted) * (wanted > 0)
        back, ahead = (torch.arange(part.shape[1], device=later.device) for part in (recent, later))
        steps = back[:, None] + ahead
        left, events = (count - torch.where(steps < REACH, CLOSER**steps, 0)).clamp_min(0), self.events[wanted]
        return count * weight_of(events) - left * weight_of((events - 1).clamp_min(0))

    @property
    def weight(self) -> Float[Tensor, ""]:
        """The weight of the transformer's logits; for a trust above 1, the offsets weigh less instead."""
        return self.trust.clamp_max(1)

    def item_offsets(self, masses: list[Float[Tensor, "B rows"]], like: Tensor) -> Float[Tensor, "B rows"]:
        """Offsets in nats of all item rows by their masses, in the shape of `like`."""
        total = torch.zeros_like(like, dtype=self.events.dtype)
        for table, slope, mass, (low, width) in zip(self.table, self.slope, masses, self.edges, strict=True):
            x = (mass.clamp_min(1e-30).log() - low) / width
            curve, slot = F.pad(table, (1, 0)), x.floor().clamp(-1, self.buckets - 1).long() + 1
            total = total + curve.index_select(0, slot.flatten()).view_as(x) + slope * x * (x >= 0)
        return total

    def offsets(self, rows: Int[Tensor, "B T"]) -> tuple[Float[Tensor, "B rows"], list[Float[Tensor, "B _"]]]:
        """Offsets in nats of all item rows, and of the nodes of each depth, after histories; 0 pads on the right."""
        masses, seen = self.masses(rows)
        by_mass = self.item_offsets(masses, seen) / self.trust.clamp_min(1)
        share, free, nodes = by_mass.exp().masked_fill(seen, 0), (~seen).to(by_mass), []
        for depth in range(1, len(self.seen)):
            total, count = (self._below(part, depth) for part in (share, free))
            nodes.append(torch.where(count > 0, total.log() - self.weight * count.log(), self.seen[depth]))
        return by_mass + seen * self.seen[0], nodes

    def _below(self, values: Float[Tensor, "B rows"], depth: int) -> Float[Tensor, "B nodes"]:
        """Sums over the items below the nodes of a depth."""
        sums = values.new_zeros(len(values), self.nodes[depth - 1])
        return sums.index_add_(1, self.node[1:, depth - 1], values[:, 1:])

    def loss(self, rows: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Mean of -log softmax(offsets)[next event] over unseen items after a random event of each window, in nats."""
        size = (rows > 0).sum(1, keepdim=True)
        cut = 1 + (torch.rand(len(rows), 1, device=rows.device) * (size - 1)).long()  # events that are read
        place = torch.arange(rows.shape[1], device=rows.device)
        later = rows.gather(1, (cut + place).clamp_max(rows.shape[1] - 1)).masked_fill(cut + place >= size, 0)
        (masses, seen), target = self.masses(torch.where(place < cut, rows, 0), later), later[:, 0]
        gone = seen.scatter(1, target[:, None], False).index_fill(1, target.new_zeros(1), True)  # repeated targets stay
        offsets = self.item_offsets(masses, seen).masked_fill(gone, -torch.inf)
        return {"loss": F.cross_entropy(offsets, target)}

    def held(self, rows: Int[Tensor, "B T"]) -> Places:
        """The items of the history at every training position; 0 pads on the right."""
        user, step = (rows > 0).nonzero(as_tuple=True)
        new = ~(rows[:, :, None] == rows[:, None, :]).tril(-1).any(-1)
        until = torch.arange(rows.shape[1], device=rows.device) <= step[:, None]
        row, past = (new[user] & until).nonzero(as_tuple=True)
        return row, rows[user[row], past]

    def held_nodes(self, held: Places) -> list[Places]:
        """The nodes of each depth whose items are all held."""
        (row, item), found = held, []
        for node, count in zip(self.node.T, self.nodes, strict=True):
            place, size = torch.unique(row * count + node[item], return_counts=True)
            place = place[size == torch.bincount(node[1:], minlength=count)[place % count]]
            found.append((place // count, place % count))
        return found


class SeenOffsets(NamedTuple):
    """Offsets of the codes of seen nodes at training positions, for `CodeOutputs.log_probs`; row p is position p."""

    vectors: CodeVectors
    depths: list[Places]
    values: Float[Tensor, "depths"]

    def __call__(self, logits: Float[Tensor, "P K"], level: int, above: Int[Tensor, "P"]) -> Float[Tensor, "P K"]:
        """The logits with offsets; nodes below other prefixes than those `above` are left out."""
        row, node = self.depths[level]
        inside = getattr(self.vectors, f"parent_{level}")[node] == above[row]
        place = row[inside], self.vectors.code_of(level, node[inside])
        return logits.index_put(place, self.values[level].expand(len(place[0])), accumulate=True)


class RankingOffsets(NamedTuple):
    """Offsets of the codes after prefixes of users, for `CodeOutputs.log_probs`: row r belongs to user `owner[r]`."""

    vectors: CodeVectors
    depths: list[Float[Tensor, "B _"]]
    trust: Float[Tensor, ""]
    owner: Int[Tensor, "R"]

    def __call__(self, logits: Float[Tensor, "R K"], level: int, above: Int[Tensor, "R"]) -> Float[Tensor, "R K"]:
        """The logits, weighed by `trust`, with offsets."""
        table = self.depths[level]
        values = lambda row, child, _: table[self.owner[row], child]  # noqa: E731
        return self.vectors.add_to_children(self.trust * logits, level, above, values)

    def select(self, rows: Int[Tensor, "new"]) -> "RankingOffsets":
        """Those of some rows."""
        return self._replace(owner=self.owner[rows])
