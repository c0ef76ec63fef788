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
    many = "leave none"
    if left:
        rest = listed([f"{name} ({rate:.2g} %)" for name, rate in left.items()])
        many = f"leave some for {rest}, where a prefix has more items than last codes"
    return (
        f"Before a repair {spread}; extra always removes them; nearest and sinkhorn, which keep the length of an ID, "
        f"{many}."
    )


def low_rate(
    rate: Mapping[str, float],
    alike: Mapping[str, float],
    ablations: Sequence[str] = (),
    control: str = "random-ids",
) -> str:
    """Whether the tokenizer with the fewest collisions also has the most shared users below a first code.

    Args: rate: tokenizer -> collision rate, in %. alike: the same -> shared users below a first code, as a multiple of
        any two items; NaN if it is not known. ablations: tokenizers that are `bbqrec` with one part removed or
        exchanged. control: the tokenizer without meaning.
    """
    known = {name: value for name, value in alike.items() if np.isfinite(value)}
    fewest, low = _extremes(rate, ".1f", largest=False)
    first = f"{listed(fewest)} {'collides' if len(fewest) == 1 else 'collide'} least ({low} %)"
    if not known:
        return f"Not known: {first}, but no two items of these data share users."
    best, most = _extremes(known, ".2f", largest=True)
    has, users = "has" if len(best) == 1 else "have", f"the most shared users ({most} times any two items)"
    found = f"yes: {first} and {has} {users}" if fewest == best else f"no: {first}, but {listed(best)} {has} {users}"
    if control not in fewest:
        rank = 1 + sum(other < rate[control] for other in rate.values())
        found += f"; {control} has rank {rank} of {len(rate)} by collisions ({rate[control]:.1f} %)"
    return f"For these tokenizers {found}; the codes of {control} mean nothing.{_parts(known, ablations)}"


def _parts(alike: Mapping[str, float], ablations: Sequence[str]) -> str:
    """Which ablations have at least the shared users of `bbqrec`: what they leave out does not add to this measure."""
    some = {name: f"{alike[name]:.2f}" for name in ablations if name in alike}
    if "bbqrec" not in alike or not some:
        return ""
    ours = f"{alike['bbqrec']:.2f}"
    equal = [f"{name} ({value})" for name, value in some.items() if float(value) >= float(ours)]
    told = f" Of {len(some)} tokenizers that are bbqrec ({ours}) with one part removed or exchanged, "
    if not equal:
        return f"{told}none has as many shared users (one seed, no interval)."
    verb, parts = ("has", "that part adds") if len(equal) == 1 else ("have", "those parts add")
    return f"{told}{listed(equal)} {verb} at least as many, so {parts} none here (one seed, no interval)."


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
    told = (f"By {label} two items with one first code are {_by_effect(curves)}." for label, curves in found.items())
    return " ".join(told)


def _by_effect(curves: Mapping[str, Purity]) -> str:
    """One measure of `shared_users`."""
    words = ("more alike than any two items", "less alike", "not clearly different", "too few to compare")
    kinds: dict[str, list[str]] = {word: [] for word in words}
    for name, curve in curves.items():
        if len(curve.mean) < 2 or min(curve.pairs[:2]) < FEWEST_PAIRS:
            kinds["too few to compare"].append(name)
            continue
        change, noise = curve.mean[1] - curve.mean[0], 1.96 * np.hypot(*curve.error[:2])
        kind = words[2] if abs(change) <= noise else words[0] if change > 0 else words[1]
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
            f"The claim fails here: bbqrec ({ours} %) does not collide less than any of the {len(others)} tokenizers "
            f"with IDs as long that store at most as many vectors ({vectors:,}): {listed(rest)}."
        )
    return (
        f"The claim holds only in part here: bbqrec ({ours} %) collides less than {len(less)} of the {len(others)} "
        f"tokenizers with IDs as long that store at most as many vectors ({vectors:,}), but not less than "
        f"{listed(rest)}."
    )


def rate_and_quality(
    rate: Mapping[str, float],
    ndcg: Mapping[str, float],
    other: Mapping[str, Sequence[str]],
    control: str = "random-ids",
) -> str:
    """How often the tokenizer with fewer collisions also ranks better, over pairs with one and the same recommender.

    Args: rate: tokenizer -> collision rate, in %. ndcg: tokenizer -> NDCG@10 of its run; NaN without one. other: the
        same -> settings in which its recommender differs from that of `bbqrec`, from `collisions.other_settings`.
        control: the tokenizer without meaning.
    """
    known = [name for name, value in ndcg.items() if np.isfinite(value)]
    alike = [name for name in known if not other[name]]
    away = [
        f"{name} ({ndcg[name]:.4f}: its recommender differs in {listed(other[name])})" for name in known if other[name]
    ]
    apart = f" Left out, because NDCG@10 shows more than the IDs there: {listed(away)}." if away else ""
    if len(alike) < 2:
        return (
            "Whether fewer collisions go with better lists is not known: the store has no two runs that differ in the "
            f"IDs alone.{apart}"
        )
    learned = [name for name in alike if name != control]
    told = _agreeing_pairs(rate, ndcg, alike)
    if control in alike:
        told = f"{_agreeing_pairs(rate, ndcg, learned)}, with {control} {told}" if len(learned) > 1 else told
    best = max(alike, key=ndcg.get)
    return (
        f"Of {listed(alike)}, which have the same recommender, the one with fewer collisions has the higher NDCG@10 "
        f"{told}, where chance is half; {best} has the highest, {ndcg[best]:.4f} (one seed, no interval: notebook 05 "
        f"tests differences).{apart}"
    )


def _agreeing_pairs(rate: Mapping[str, float], ndcg: Mapping[str, float], names: Sequence[str]) -> str:
    """In how many pairs fewer collisions go with a higher NDCG@10, and how many pairs are equal in one, as printed."""
    signs = [
        np.sign(float(f"{rate[b]:.1f}") - float(f"{rate[a]:.1f}"))
        * np.sign(float(f"{ndcg[a]:.4f}") - float(f"{ndcg[b]:.4f}"))
        for a, b in combinations(names, 2)
    ]
    ties = sum(sign == 0 for sign in signs)
    if ties == len(signs):
        return f"in no pair, because {'it is' if ties == 1 else f'all {ties} are'} equal in one of the two"
    equal = f" ({ties} more {'is' if ties == 1 else 'are'} equal in one of the two)" if ties else ""
    return f"in {sum(sign > 0 for sign in signs)} of {len(signs) - ties} pairs{equal}"


def shared_meaning(
    colliding: tuple[int, int, float],
    which: str,
    purity: Mapping[str, Purity],
    ndcg: Mapping[str, float],
    control: str = "random-ids",
) -> str:
    """Which items share an ID, whether a shared first code means shared users, and whether this helped to recommend.

    Args: colliding: items of `bbqrec` that share their ID before any repair, all items, and the collision rate in %.
        which: from `who_collides`. purity: tokenizer -> shared users by codes shared. ndcg: the same -> NDCG@10 of its
        run; NaN without one.
    """
    sharing, items, rate = colliding
    told = (
        f"Before any repair {sharing:,} of {items:,} items of bbqrec share their ID with another item "
        f"({100 * sharing / items:.1f} %; the collision rate is {rate:.1f} %). "
    )
    told += f"{which} " if sharing else ""
    told += f"By the users that they share, two items with one first code are {_by_effect(purity)}."
    both = ndcg.get("bbqrec", np.nan), ndcg.get(control, np.nan)
    if not np.isfinite(both).all():
        return told
    one, two = (f"{value:.4f}" for value in both)
    side = "higher than" if one > two else "lower than" if one < two else "equal to"
    return (
        f"{told} Meaning is not yet accuracy: NDCG@10 of a recommender with the IDs of bbqrec is {one}, {side} that "
        f"with random IDs ({two}, one seed)."
    )


def seeds(stable: Mapping[str, Stability], chance: Mapping[str, tuple[float, float]]) -> str:
    """Whether training runs with different seeds put the same items below one first code, and give the same IDs.

    Args: stable: tokenizer -> similarity of its IDs. chance: the same -> from `recovery.together_by_chance`.
    """
    words = ("always", "more often than by chance", "no more often than by chance", "less often than by chance")
    kinds: dict[str, list[str]] = {word: [] for word in words}
    unknown = []
    for name, of in stable.items():
        kept, (low, high) = of.together[0], chance[name]
        if not np.isfinite([kept, low, high]).all():
            unknown.append(name)
            continue
        kind = words[0] if f"{100 * kept:.1f}" == "100.0" else words[1 if kept > high else 3 if kept < low else 2]
        kinds[kind].append(f"{name} ({100 * kept:.1f} %, by chance {100 * low:.1f} to {100 * high:.1f} %)")
    told = [f"{kind} for {listed(names)}" for kind, names in kinds.items() if names]
    told += [f"not known for {listed(unknown)}, where no two items share a first code"] if unknown else []
    whole = {name: of.together[-1] for name, of in stable.items() if len(of.together) > 1}
    ids = [f"{name} {100 * kept:.0f} %" if np.isfinite(kept) else f"{name} has none" for name, kept in whole.items()]
    last = f" Pairs that share a whole ID do so under another seed too: {listed(ids)}." if ids else ""
    return f"Pairs of items below one first code stay together under another seed {', '.join(told)}.{last}"


def true_tree(agreement: Mapping[str, Float[np.ndarray, "_ depth"]], control: str = "random-ids") -> str:
    """How well the prefixes of each tokenizer find the true tree: level by level, and at their best.

    Args: agreement: from `recovery.tree_agreement`, 1 for the same groups; NaN where an agreement has no scale.
    """
    names, depth = list(agreement), min(min(of.shape) for of in agreement.values())
    told = []
    for level in range(depth):
        values = {name: float(agreement[name][level, level]) for name in names}
        told.append(
            f"{level + 1} code{'s' * (level > 0)} against level {level + 1} of the tree: {_found(values, control)}"
        )
    best = {name: float(np.nanmax(of)) if np.isfinite(of).any() else float("nan") for name, of in agreement.items()}
    return (
        f"{'; '.join(told)}. The highest of any prefix with any level: {_found(best, control)}. The tree itself would "
        "reach 1 (one seed)."
    )


def _found(values: Mapping[str, float], control: str) -> str:
    """The tokenizers by how much they agree with a level, best first, against random IDs."""
    bar = values.get(control, np.nan)
    printed = {name: round(value, 2) + 0.0 for name, value in values.items() if np.isfinite(value)}
    order = sorted((name for name in printed if name != control), key=lambda name: -printed[name])
    told = [
        f"{name} {printed[name]:.2f}"
        + (", no better than random IDs" if printed[name] <= 0.05 + (max(bar, 0) if np.isfinite(bar) else 0) else "")
        for name in order
    ]
    told += [f"{control} {printed[control]:.2f}"] if control in printed else []
    return ", ".join(told) if told else "not defined, because every group has one item"
