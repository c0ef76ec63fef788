"""Answers of the collision notebook: one sentence per section, whose words follow from the numbers that it quotes.

Words such as *more* and *less* compare numbers as they are printed, so that no sentence contradicts its own digits.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Num

from bbqrec_lab.analysis.neighbours import Purity
from bbqrec_lab.analysis.recovery import Stability
from bbqrec_lab.experiments.tables import listed

FEWEST_PAIRS = 10  # a mean over fewer pairs of items is not quoted


def _extremes(values: Mapping[str, float], form: str, largest: bool) -> tuple[list[str], str]:
    """The names with the largest or smallest value, as printed, and this value."""
    edge = f"{(max if largest else min)(values.values()):{form}}"
    return [name for name, value in values.items() if f"{value:{form}}" == edge], edge


def repairs(before: Mapping[str, float], kept: Mapping[str, float]) -> str:
    """How often IDs collide, and what a repair that keeps their length leaves.

    Args: before: tokenizer -> collision rate before any repair, in %. kept: the same after the repair `nearest`.
    """
    (fewest, low), (most, high) = (_extremes(before, ".1f", largest) for largest in (False, True))
    left = {name: rate for name, rate in kept.items() if rate > 0}
    spread = f"all tokenizers have {low} % collisions"
    if low != high:
        spread = f"collisions reach from {low} % ({listed(fewest)}) to {high} % ({listed(most)})"
    many = "they leave none"
    if left:
        rest = listed([f"{name} ({rate:.2g} %)" for name, rate in left.items()])
        many = f"they leave some for {rest}, where a prefix has more items than last codes"
    return (
        f"Before a repair {spread}; extra always removes them, and as to nearest and sinkhorn, which keep the "
        f"length of an ID, {many}."
    )


def low_rate(rate: Mapping[str, float], alike: Mapping[str, float], control: str = "random-ids") -> str:
    """Whether the tokenizer with the fewest collisions also has the most shared users below a first code.

    Args: rate: tokenizer -> collision rate, in %. alike: the same -> shared users below a first code, as a multiple of
        any two items; NaN if it is not known. control: the tokenizer without meaning.
    """
    known = {name: value for name, value in alike.items() if np.isfinite(value)}
    fewest, low = _extremes(rate, ".1f", largest=False)
    first = f"{listed(fewest)} {'collides' if len(fewest) == 1 else 'collide'} least ({low} %)"
    if not known:
        return f"Not known: {first}, but no two items of these data share users."
    best, most = _extremes(known, ".2f", largest=True)
    has, users = "has" if len(best) == 1 else "have", f"the most shared users ({most} times any two items)"
    found = f"yes: {first} and {has} {users}" if fewest == best else f"no: {first}, but {listed(best)} {has} {users}"
    rank = 1 + sum(other < rate[control] for other in rate.values())
    less = f"{control}, which means nothing, has rank {rank} of {len(rate)} by collisions ({rate[control]:.1f} %)"
    return f"For these tokenizers {found}; {less}."


def who_collides(member: Bool[np.ndarray, "N"], signals: Num[np.ndarray, "N"], events: Num[np.ndarray, "N"]) -> str:
    """What distinguishes items that share an ID: signals and training events.

    Args: member: whether an item shares its ID. signals: share of its signals that are present. events: of training.
    """
    if not member.any():
        return "No two items share an ID."
    if member.all():
        return "Every item shares its ID with another one."
    present = [f"{100 * signals[part].mean():.1f}" for part in (member, ~member)]
    seen = [f"{np.median(events[part]):g}" for part in (member, ~member)]
    less = "about as many" if abs(float(present[0]) - float(present[1])) < 1 else _compared(*present)
    return (
        f"Items that share an ID have {less} signals ({present[0]} % of all against {present[1]} %) and "
        f"{_compared(*seen)} training events (median {seen[0]} against {seen[1]})."
    )


def _compared(one: str, two: str) -> str:
    """`fewer`, `more` or `as many`, from numbers as they are printed."""
    if float(one) == float(two):
        return "as many"
    return "fewer" if float(one) < float(two) else "more"


def shared_users(found: Mapping[str, Mapping[str, Purity]]) -> str:
    """Whether items with the same first code are more alike than any two items, by measure.

    A difference counts if it exceeds its 95 % interval.

    Args: found: measure -> (tokenizer -> likeness by shared codes).
    """
    return "; ".join(f"{label}: {_by_effect(curves)}" for label, curves in found.items()) + "."


def _by_effect(curves: Mapping[str, Purity]) -> str:
    """One measure of `shared_users`."""
    kinds: dict[str, list[str]] = {"more alike": [], "less alike": [], "no clear difference": [], "too few pairs": []}
    for name, curve in curves.items():
        if len(curve.mean) < 2 or min(curve.pairs[:2]) < FEWEST_PAIRS:
            kinds["too few pairs"].append(name)
            continue
        change, noise = curve.mean[1] - curve.mean[0], 1.96 * np.hypot(*curve.error[:2])
        kind = "no clear difference" if abs(change) <= noise else "more alike" if change > 0 else "less alike"
        kinds[kind].append(f"{name} ({curve.mean[0]:.3f} to {curve.mean[1]:.3f})")
    return ", ".join(f"{kind} for {listed(names)}" for kind, names in kinds.items() if names)


def claim(
    rate: Mapping[str, float], memory: Mapping[str, int], codes: Mapping[str, int], control: str = "random-ids"
) -> str:
    """Whether `bbqrec` collides less than each tokenizer with IDs as long that stores no more codebook vectors.

    Args: rate: tokenizer -> collision rate before any repair, in %. memory: the same -> stored vectors. codes: the
        same -> codes per ID; an ID of another length collides more or less for this reason alone.
    """
    small = [name for name in rate if name not in ("bbqrec", control) and memory[name] <= memory["bbqrec"]]
    others = [name for name in small if codes[name] == codes["bbqrec"]]
    told = _claim(rate, memory["bbqrec"], others)
    away = [name for name in small if name not in others]
    return told + (f" Not compared, because of another length of IDs: {listed(away)}." if away else "")


def _claim(rate: Mapping[str, float], vectors: int, others: Sequence[str]) -> str:
    """The verdict of `claim` against the tokenizers that can be compared."""
    ours = f"{rate['bbqrec']:.1f}"
    less = [name for name in others if float(ours) < float(f"{rate[name]:.1f}")]
    rest = [f"{name} ({rate[name]:.1f} %)" for name in others if name not in less]
    if not others:
        return f"Not tested: no other tokenizer has IDs as long and at most the {vectors:,} vectors of bbqrec."
    if not rest:
        return (
            f"The claim holds here: bbqrec ({ours} %) collides less than all {len(others)} tokenizers with IDs as long "
            f"that store at most as many vectors ({vectors:,})."
        )
    if not less:
        return (
            f"The claim fails here: bbqrec ({ours} %) collides less than none of the {len(others)} tokenizers with IDs "
            f"as long that store at most as many vectors ({vectors:,}): {listed(rest)}."
        )
    return (
        f"The claim holds only in part here: bbqrec ({ours} %) collides less than {len(less)} of the {len(others)} "
        f"tokenizers with IDs as long that store at most as many vectors ({vectors:,}), but not less than "
        f"{listed(rest)}."
    )


def rate_and_quality(rate: Mapping[str, float], ndcg: Mapping[str, float]) -> str:
    """How often the tokenizer with fewer collisions also ranks better, over all pairs of tokenizers with a run.

    Args: rate: tokenizer -> collision rate, in %. ndcg: tokenizer -> NDCG@10 of its run; NaN without one.
    """
    known = [name for name, value in ndcg.items() if np.isfinite(value)]
    pairs = [(a, b) for a, b in combinations(known, 2) if rate[a] != rate[b] and ndcg[a] != ndcg[b]]
    if not pairs:
        return "Whether fewer collisions go with better lists is not known: the store has no two runs to compare."
    agree = sum((rate[a] < rate[b]) == (ndcg[a] > ndcg[b]) for a, b in pairs)
    half = "more than half" if 2 * agree > len(pairs) else "half" if 2 * agree == len(pairs) else "less than half"
    best = max(known, key=ndcg.get)
    return (
        f"In {agree} of {len(pairs)} pairs of tokenizers ({half}; chance is half) the one with fewer collisions has "
        f"the higher NDCG@10; {best} has the highest, {ndcg[best]:.4f} (one seed, no interval: notebook 05 tests "
        "differences)."
    )


def shared_meaning(
    rate: Mapping[str, float], purity: Mapping[str, Purity], ndcg: Mapping[str, float], control: str = "random-ids"
) -> str:
    """Which items share an ID, whether a shared first code means shared users, and whether this helped to recommend.

    Args: rate: tokenizer -> collision rate before any repair, in %. purity: the same -> shared users by codes shared.
        ndcg: the same -> NDCG@10 of its run; NaN without one.
    """
    told = (
        f"Before any repair {rate['bbqrec']:.1f} % of the items of bbqrec have no ID of their own. Two items with the "
        f"same first code against any two items, by the users that they share: {_by_effect(purity)}"
    )
    both = ndcg.get("bbqrec", np.nan), ndcg.get(control, np.nan)
    if not np.isfinite(both).all():
        return f"{told}."
    one, two = (f"{value:.4f}" for value in both)
    side = "higher than" if one > two else "lower than" if one < two else "equal to"
    return (
        f"{told}. Meaning is not yet accuracy: NDCG@10 of a recommender with the IDs of bbqrec is {one}, {side} that "
        f"with random IDs ({two}, one seed)."
    )


def seeds(stable: Mapping[str, Stability]) -> str:
    """Whether training runs with different seeds put the same items below one first code."""
    kinds: dict[str, list[str]] = {"always": [], "more often than chance": [], "no more often than chance": []}
    unknown = []
    for name, of in stable.items():
        if not np.isfinite(of.together[0]):
            unknown.append(name)
            continue
        kept, chance = f"{100 * of.together[0]:.0f}", f"{100 * of.by_chance[0]:.0f}"
        kind = "always" if kept == "100" else list(kinds)[1 + (float(kept) <= float(chance))]
        kinds[kind].append(f"{name} ({kept} %, chance {chance} %)")
    told = [f"{kind} for {listed(names)}" for kind, names in kinds.items() if names]
    told += [f"not known for {listed(unknown)}, where no two items share a first code"] if unknown else []
    return f"Pairs of items below one first code stay together under another seed {', '.join(told)}."


def true_tree(agreement: Mapping[str, Float[np.ndarray, "_ depth"]], control: str = "random-ids") -> str:
    """How well the prefixes of each tokenizer find the true tree: its highest agreement with any level.

    Args: agreement: from `recovery.tree_agreement`, 1 for the same groups; NaN where an agreement has no scale.
    """
    best = {name: float(np.nanmax(found)) for name, found in agreement.items() if np.isfinite(found).any()}
    known = {name: f"{value:.2f}" for name, value in best.items() if name != control}
    bar = best.get(control, 0.0)
    whole = [f"{name} ({told})" for name, told in known.items() if float(told) >= 1]
    part = [f"{name} ({told})" for name, told in known.items() if 0.05 + max(bar, 0) < float(told) < 1]
    none = [f"{name} ({told})" for name, told in known.items() if float(told) <= 0.05 + max(bar, 0)]
    kinds = {"completely": whole, "in part": part, "no better than random IDs": none}
    told = ", ".join(f"{kind} by {listed(names)}" for kind, names in kinds.items() if names) or "by no tokenizer"
    return f"The true tree is found {told}; {control} reach {bar:.2f} and the tree itself would reach 1."
