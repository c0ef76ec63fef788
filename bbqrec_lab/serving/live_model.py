"""A trained model with more items: new leaves in its prefix tree, and vectors for what it holds of each item."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bbqrec_core import Recommender, SemanticIds, SequenceModel, build_recommender
from bbqrec_core.recommender.score_bias import SHARPER, ScoreBias
from bbqrec_core.recommender.similarity_bias import SimilarityBias
from bbqrec_lab.analysis.explanations import shared_prefix
from bbqrec_lab.baselines.sequence_models import make_model


@dataclass(frozen=True)
class NewItem:
    """What the model needs of a new item: its ID, the signals that are compared, and how alike it is to others.

    Args: raw_code: before the repair. likeness: cosine of content with every row before it, row 0 included; empty if
        no content is compared.
    """

    code: Int[np.ndarray, "sid_len"]
    raw_code: Int[np.ndarray, "learned"]
    signal_codes: Int[np.ndarray, "S L"]
    signal_vectors: Float[np.ndarray, "S V"]
    present: Bool[np.ndarray, "S"]
    likeness: Float[np.ndarray, "rows"]

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name, to be stored."""
        return dict(vars(self))


def extended_ids(ids: SemanticIds, added: Sequence[NewItem]) -> SemanticIds:
    """The IDs of a catalogue with those of new items below."""
    if not added:
        return ids
    grown = {}
    for name, own in (
        *(("code_ids", "code"), ("raw_codes", "raw_code"), ("signal_codes", "signal_codes")),
        *(("signal_vectors", "signal_vectors"), ("present", "present")),
    ):
        table = getattr(ids, name)
        more = np.stack([getattr(item, own) for item in added]).astype(table.dtype)
        grown[name] = np.concatenate([table, more])
    return replace(ids, **grown)


@torch.no_grad()
def extended(base: Recommender, ids: SemanticIds, seen: Bool[np.ndarray, "N"], added: Sequence[NewItem]) -> Recommender:
    """A recommender for the catalogue of `base` and new items behind it; all parameters stay as they were trained.

    Prefixes that are new have no vector of their own yet (0, as for prefixes that training never saw). A new item's
    vector in the item softmax is the mean over the trained items below its deepest prefix that has any. In score
    reweighting it has no pairs, and its likeness of content like any other item.

    Args: base: as trained, on the CPU. ids: of its catalogue. seen: item rows that training saw.
    Raises: ValueError for a model that reads histories code by code.
    Choice: it is always made from the trained model, so the same items give the same model, live or after a restart.
    """
    if base.model.per_item > 1:
        raise ValueError("a model that reads histories code by code cannot take new items: serve another run")
    if not added:
        return base
    old, more = base.model, extended_ids(ids, added)
    state = {name: value for name, value in old.state_dict().items() if not name.startswith("reweighting.")}
    if "features" in state:
        state["features"] = F.pad(state["features"], (0, 0, 0, len(added)))
    make = partial(make_model, features=state.get("features"))
    known = np.concatenate([seen, np.zeros(len(added), bool)])
    bare = replace(more, signals=())  # comparing all pairs of items again would take most of the time
    found = build_recommender(len(more.code_ids) - 1, bare, old.config, 0, known, make)
    if old.items is not None:
        state["items.weight"] = torch.cat([state["items.weight"], _mean_of_branch(old, ids, seen, added)])
    if old.vectors is not None:
        state |= _moved_prefixes(old, found.model)
    if old.scoring is not None:
        state |= _grown_scoring(old.scoring, found.model.scoring.partners.shape[1], added)
    found.model.load_state_dict(state)
    found.model.reweighting = None if old.reweighting is None else _grown_reweighting(old.reweighting, more)
    return replace(found, model=found.model.eval())


def _mean_of_branch(
    model: SequenceModel, ids: SemanticIds, seen: Bool[np.ndarray, "N"], added: Sequence[NewItem]
) -> Float[Tensor, "added D"]:
    """For each new item the mean vector of the trained items that share most leading codes with it."""
    rows, vectors = np.flatnonzero(seen), model.item_embeddings()
    shared = shared_prefix(np.stack([item.code for item in added]), ids.code_ids[rows])
    return torch.stack([vectors[rows[line == line.max()]].mean(0) for line in shared])


def _moved_prefixes(old: SequenceModel, new: SequenceModel) -> dict[str, Tensor]:
    """The tables of prefixes, at the places that the nodes have in the new tree."""
    found, rows, there = {}, len(old.vectors.node), old.state_dict()
    for place, table in enumerate(old.vectors.prefixes):
        moved = torch.zeros_like(new.vectors.prefixes[place].weight)
        moved[new.vectors.node[1:rows, place + 1]] = table.weight[old.vectors.node[1:, place + 1]]
        names = (f"{owner}vectors.prefixes.{place}.weight" for owner in ("", "head."))  # one module with two owners
        found |= {name: moved for name in names if name in there}
    return found


def _grown_scoring(old: ScoreBias, width: int, added: Sequence[NewItem]) -> dict[str, Tensor]:
    """The tables of score reweighting: no pairs with new items, which enter the lists of items that are like them.

    Args: width: how many others each item keeps; more than before in a catalogue that is smaller than that.
    """
    wider = (0, width - old.alike.shape[1], 0, len(added))
    grown = {name: F.pad(getattr(old, name), wider) for name in ("partners", "counts", "alike", "cosines")}
    alike, cosines = grown["alike"], grown["cosines"]
    for row, item in enumerate(added, start=len(old.alike)):
        if not (width and len(item.likeness)):
            continue
        likeness = torch.from_numpy(item.likeness).clamp_min(0) ** SHARPER
        likeness[0] = 0
        best = likeness.topk(min(width, row))
        alike[row, : len(best.indices)], cosines[row, : len(best.values)] = best.indices.int(), best.values
        least = cosines[:row].min(1)
        closer = (likeness > least.values).nonzero().squeeze(1)
        alike[closer, least.indices[closer]] = row
        cosines[closer, least.indices[closer]] = likeness[closer]
    grown["events"] = F.pad(old.events, (0, len(added)))
    return {f"scoring.{name}": value for name, value in grown.items()}


def _grown_reweighting(old: SimilarityBias, ids: SemanticIds) -> SimilarityBias:
    """The learned table with the vectors of more items; buckets are computed per request from then on."""
    found = copy.copy(old)
    found._buffers = dict(old._buffers)
    found.vectors = F.normalize(torch.from_numpy(ids.signal_vectors), dim=-1)
    found.present = torch.from_numpy(ids.present)
    found.pairs = None
    return found
