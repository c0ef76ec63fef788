"""Answers of the notebooks on results: one sentence per section, whose words follow from the numbers that it quotes.

Words such as *above* and *below* compare numbers as they are printed, so that no sentence contradicts its own digits.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import polars as pl

from bbqrec_lab.experiments.statistics import CLEAR, OUTCOMES
from bbqrec_lab.experiments.tables import listed

Shares = Mapping[str, float]  # name -> value


def _sign(value: float, form: str) -> int:
    """The sign of a number as it is printed: 0 if it is printed as zero."""
    return int(np.sign(float(f"{value:{form}}")))


def _order(one: float, two: float, form: str) -> int:
    """1, 0 or -1: whether `one` is above, equal to or below `two`, as both are printed."""
    return int(np.sign(float(f"{one:{form}}") - float(f"{two:{form}}")))


def leaders(values: Shares, form: str = ".4f") -> list[str]:
    """The names with the highest value, as printed."""
    top = max(values.values())
    return [name for name, value in values.items() if _order(value, top, form) == 0]


def _rank(values: Shares, name: str, form: str = ".4f") -> int:
    """The rank of one name, from 1; equal values, as printed, share the better rank."""
    return 1 + sum(_order(other, values[name], form) > 0 for other in values.values())


def _leads(names: Sequence[str]) -> str:
    """`a leads`, `a and b lead`."""
    return f"{listed(names)} {'leads' if len(names) == 1 else 'lead'}"


def _by_sign(differences: Shares, form: str = "+.4f") -> dict[int, list[str]]:
    """Names with their values, by the sign of the value as printed; NaN is left out."""
    found: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for name, value in differences.items():
        if np.isfinite(value):
            found[_sign(value, form)].append(f"{name} ({value:{form}})")
    return found


def interval(difference: float, low: float, high: float, p: float) -> str:
    """What a comparison of two recommenders shows: its interval and its p-value, which can disagree near the border."""
    zero = "contains" if low <= 0 <= high else "excludes"
    told = f"the mean difference is {difference:+.3f}, its 95 % interval {low:+.3f} to {high:+.3f} {zero} zero"
    if p >= CLEAR:
        return f"Not clear: {told}, and p is {p:.3f}, so chance can explain it."
    side = "ours" if difference > 0 else "theirs"
    return f"Clear in favour of {side}: {told}, and p is {p:.3f}."


def standing(means: Shares, spread: float, seeds: int, name: str = "bbqrec") -> str:
    """The rank of one variant, and whether its seeds differ as much as it does from the best variant.

    Args: means: variant -> mean over seeds. spread: largest minus smallest seed of `name`. seeds: their number.
    """
    if not any(means.values()):
        return "No variant finds a target, so no order can be given."
    top = max(means.values())
    best, rank = leaders(means), _rank(means, name)
    said = f"{name} has rank {rank} of {len(means)} with {means[name]:.4f}"
    if rank > 1:
        said += f", and {_leads(best)} with {top:.4f}"
    elif len(best) > 1:
        said += f", together with {listed([other for other in best if other != name])}"
    if seeds < 2:
        return f"{said}; one seed does not show how much another training run would move this."
    everything = np.ptp([*means.values()])
    return f"{said}; its {seeds} seeds span {spread:.4f}, and the range of all variants is {everything:.4f}."


def relative(means: Shares, others: Sequence[str], name: str = "bbqrec") -> str:
    """What other variants reach of the score of one variant, in percent."""
    if not means[name]:
        return f"{name} finds no target, so no share of its score can be given."
    return "Of the NDCG@10 of {}: {}.".format(
        name, ", ".join(f"{other} reaches {means[other] / means[name]:.0%}" for other in others)
    )


class Verdicts(NamedTuple):
    """Names of compared variants by outcome; open: neither, whatever the sign."""

    better: list[str]
    worse: list[str]
    open: list[str]


def verdicts(asked: pl.DataFrame) -> Verdicts:
    """Divide comparisons with `bbqrec` by sign and corrected p-value.

    Args: asked: columns against, difference and p_holm, from `statistics.family`.
    """
    found = Verdicts([], [], [])
    for name, difference, p in asked.select("against", "difference", "p_holm").iter_rows():
        kind = found.open if p >= CLEAR or difference == 0 else found.better if difference > 0 else found.worse
        kind.append(name)
    return found


def clear(asked: pl.DataFrame, tests: int) -> str:
    """Which comparisons with `bbqrec` are clear, and how far the open ones reach.

    Args: asked: as `verdicts`, with columns low and high; one row per variant. tests: for which p was corrected.
    """
    if asked.is_empty():
        return "There is nothing to compare with."
    found = verdicts(asked)
    unsure = asked.filter(pl.col("against").is_in(found.open))
    reach = "no comparison is open"
    if len(unsure):
        reach = (
            f"{len(unsure)} of {len(asked)} {'is' if len(unsure) == 1 else 'are'} open ({listed(found.open)}), with "
            f"intervals from {unsure['low'].min():+.4f} to {unsure['high'].max():+.4f}, which does not mean equal"
        )
    return (
        f"bbqrec is clearly better than {listed(found.better)} and clearly worse than {listed(found.worse)}; {reach} "
        f"(p below {CLEAR} after Holm's correction for the {tests} tests of this question)."
    )


def parts(found: Verdicts, ablations: Sequence[str]) -> str:
    """What each part of the method is worth, by the ablations that remove or exchange one.

    Args: found: from `verdicts`. ablations: variants with one part removed or exchanged.
    """
    kinds = {
        "worth something, because bbqrec is clearly better than": found.better,
        "clearly in the way, because bbqrec is worse than": found.worse,
        "not clearly worth anything here, because the comparison is open with": found.open,
    }
    told = []
    for words, names in kinds.items():
        some = [name for name in names if name in ablations]
        if some:
            told.append(f"{len(some)} {'is' if len(some) == 1 else 'are'} {words} {listed(some)}")
    if not told:
        return "No row of this preset removes a part of the method."
    return f"Of the {sum(name in ablations for names in found for name in names)} parts, {'; '.join(told)}."


def meaning(asked: pl.DataFrame, control: str = "random-ids") -> str:
    """Whether the meaning of the IDs is worth something: `bbqrec` against the same recommender on random IDs.

    Args: asked: as `clear`.
    """
    found = asked.filter(against=control)
    if found.is_empty():
        return f"What the meaning of the IDs is worth is not known: there is no row {control}."
    row = found.row(0, named=True)
    told = f"bbqrec minus {control} is {row['difference']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
    better, worse, _ = verdicts(found)
    if better:
        return f"The meaning of the IDs is worth something here: {told}, clearly better than random ones."
    if worse:
        return f"The meaning of the IDs is in the way here: {told}, clearly worse than random ones."
    return f"The meaning of the IDs is not clearly worth anything here: {told}, which is open."


def winner(asked: pl.DataFrame, means: Shares) -> str:
    """Which variant has the highest NDCG@10, and whether its distance is clear.

    Args: asked: as `clear`. means: variant -> NDCG@10, with `bbqrec`.
    """
    if not any(means.values()):
        return "No method finds a target."
    best, mine, found = leaders(means), f"{means['bbqrec']:.4f}", verdicts(asked)
    if "bbqrec" not in best:
        first = f"{best[0]} ({means[best[0]]:.4f}) is ahead of bbqrec ({mine})"
        return f"{first}, clearly." if best[0] in found.worse else f"{first}, but not clearly: no method wins."
    near = [name for name in found.open if name in means]
    if near:
        return f"bbqrec has the highest score ({mine}), but is not clearly ahead of {listed(near)}: no method wins."
    return f"bbqrec wins: it has the highest score ({mine}) and is clearly ahead of all {len(means) - 1} others."


def victory(asked: pl.DataFrame, means: Shares, baselines: Sequence[str]) -> str:
    """By how much `bbqrec` is ahead of the best baseline.

    Args: asked: as `clear`. means: variant -> NDCG@10. baselines: the variants to choose the best one from.
    """
    known = [name for name in baselines if name in asked["against"]]
    if not known:
        return "There is no baseline to compare with."
    best = max(known, key=means.get)
    row = asked.row(by_predicate=pl.col("against") == best, named=True)
    found = verdicts(asked.filter(against=best))
    kind = "clearly better" if found.better else "clearly worse" if found.worse else "open"
    share = f", {row['difference'] / means[best]:+.0%}" if means[best] else ""
    return (
        f"The best baseline is {best} ({means[best]:.4f}); bbqrec ({means['bbqrec']:.4f}) minus {best} is "
        f"{row['difference']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f}{share}): {kind}."
    )


def list_length(short: Shares, long: Shares, lengths: tuple[int, int] = (1, 20)) -> str:
    """Whether models change their order between a short and a long list.

    Args: short, long: model -> Recall@k in [0, 1] with the shorter and the longer list. lengths: of both, in items.
    """
    if not any(long.values()):
        return "Not known: no model finds a target."
    few, many = ({name: 100 * value for name, value in part.items()} for part in (short, long))
    pairs = [*combinations(few, 2)]
    crossed = sum(_order(few[a], few[b], ".1f") * _order(many[a], many[b], ".1f") < 0 for a, b in pairs)
    told = f"{crossed} of {len(pairs)} pairs of these models change their order between "
    told += f"{lengths[0]} and {lengths[1]} items"
    first, last = leaders(few, ".1f"), leaders(many, ".1f")
    tops = [f"{max(part.values()):.1f} %" for part in (few, many)]
    word = "No" if not crossed else "In part" if set(first) & set(last) else "Yes"
    if first == last:
        return f"{word}: {told}; {_leads(first)} at both lengths ({tops[0]} and {tops[1]} of the targets)."
    both = f"{_leads(first)} at {lengths[0]} ({tops[0]} of the targets), {listed(last)} at {lengths[1]} ({tops[1]})"
    return f"{word}: {told}; {both}."


def same_targets(shared: Mapping[str, Shares]) -> str:
    """Whether `bbqrec` finds the targets that other models find, and which of these adds most to it.

    Args: shared: model -> shares of users from `statistics.shared_hits`.
    """
    theirs = {name: part["both"] + part["only the baseline"] for name, part in shared.items()}
    also = {name: 100 * shared[name]["both"] / found for name, found in theirs.items() if found > 0}
    if not also:
        return "Not known: none of the other models finds a target."
    low, high = min(also, key=also.get), max(also, key=also.get)
    reach = f"bbqrec also finds {also[low]:.0f} % of the targets of {low}"
    if f"{also[low]:.0f}" != f"{also[high]:.0f}":
        reach = (
            f"bbqrec also finds {also[low]:.0f} % ({low}) to {also[high]:.0f} % ({high}) of the targets that each finds"
        )
    word = "Yes" if float(f"{also[low]:.0f}") == 100 else "No" if float(f"{also[high]:.0f}") == 0 else "Only in part"
    added = {name: 100 * part["only the baseline"] for name, part in shared.items()}
    most = max(added, key=added.get)
    if _sign(added[most], ".1f") == 0:
        return f"{word}: {reach}; no other model finds a target that bbqrec misses."
    return f"{word}: {reach}; {most} adds the most, the targets of {added[most]:.1f} % of users."


def price(minutes: Shares, quality: Shares, name: str = "bbqrec") -> str:
    """Whether a cheaper variant is at least as good as `name`, and which variant is the best.

    Args: minutes: variant -> minutes of one row. quality: variant -> NDCG@10.
    """
    if not any(quality.values()):
        return "No variant finds a target, so nothing is gained for the minutes."
    better = [n for n in quality if minutes[n] < minutes[name] and quality[n] >= quality[name]]
    told = f"{name} takes {minutes[name]:.2g} minutes and reaches {quality[name]:.4f}"
    if better:
        best = max(better, key=lambda other: (quality[other], -minutes[other]))
        count = f"{len(better)} cheaper variant{'s are' if len(better) > 1 else ' is'} at least as good"
        beside = f"{minutes[best]:.2g} minutes, {quality[best]:.4f}"
        return (
            f"{told}; {count} ({best}: {beside})."
            if len(better) == 1
            else (f"{told}; {count}, the best of them {best} ({beside}).")
        )
    best = leaders(quality)
    if name in best:
        return (
            f"{told}, which no other variant exceeds." if len(best) == 1 else f"{told}; no cheaper variant is as good."
        )
    return f"{told}; no cheaper variant is as good, and {_leads(best)} with {max(quality.values()):.4f}."


def expectations(outcomes: Sequence[str]) -> str:
    """How many expectations came true.

    Args: outcomes: one of `statistics.OUTCOMES` for each expectation.
    """
    held, other, unsure = (outcomes.count(outcome) for outcome in OUTCOMES)
    verbs = ["holds" if held == 1 else "hold", *("is" if count == 1 else "are" for count in (other, unsure))]
    return (
        f"Of {len(outcomes)} expectations {held} {verbs[0]}, {other} {verbs[1]} the other way round and {unsure} "
        f"{verbs[2]} open."
    )


def elsewhere(found: Mapping[str, Shares], name: str = "bbqrec") -> str:
    """The rank of one variant in each of several result tables.

    Args: found: title of a table -> (variant -> mean NDCG@10 over seeds). A table without `name`, or with fewer than
        half of the variants of the longest one, is left out: to lead there says little. Where `name` leads, variants
        that are ahead of it in another table and have no row in this one are named.
    """
    half = max(map(len, found.values()), default=0) / 2
    known = {t: means for t, means in found.items() if name in means and any(means.values()) and len(means) >= half}
    if not known:
        return f"No table has a result of {name}."
    ahead = [title for title, means in known.items() if name in leaders(means)]
    better = {other for means in known.values() for other in means if _order(means[other], means[name], ".4f") > 0}
    led = [
        f"{title}{f' (no row of {listed(gone)})' if (gone := sorted(better - {*known[title]})) else ''}"
        for title in ahead
    ]
    ranks = listed(
        [
            f"rank {_rank(means, name)} of {len(means)} on {title} ({_leads(leaders(means))})"
            for title, means in known.items()
            if title not in ahead
        ]
    )
    if len(known) == 1:
        return f"The only result table is of this run: {name} {f'leads on {led[0]}' if led else f'has {ranks}'}."
    if not ahead:
        return f"{name} leads in none of {len(known)} result tables: it has {ranks}."
    rest = "" if len(ahead) == len(known) else f"; it has {ranks}"
    return f"{name} leads in {len(ahead)} of {len(known)} result tables, on {listed(led)}{rest}."


def who_gains(ours: Shares, theirs: Shares, against: str) -> str:
    """In which segments of users `bbqrec` is above another variant.

    Args: ours, theirs: segment -> NDCG@10; only common segments are compared.
    """
    common = {name: ours[name] - theirs[name] for name in ours if name in theirs}
    found = _by_sign(common)
    kinds = {"above": found[1], "below": found[-1], "equal to": found[0]}
    parts = [f"{word} {against} for {listed(names)}" for word, names in kinds.items() if names]
    if not parts:
        return f"No segment can be compared with {against}."
    return f"bbqrec is {', '.join(parts)} (means over seeds; no test)."


def coverage(
    cover: Mapping[str, Sequence[float]],
    unequal: Mapping[str, Sequence[float]],
    others: Sequence[str] = ("popularity", "random-ids"),
) -> str:
    """How much of the catalogue `bbqrec` recommends, and how evenly, beside other variants.

    Args: cover, unequal: variant -> coverage and Gini in [0, 1] of each seed. Means that differ by no more than the
        seeds of one of both variants do are told as about equal.
    """

    def side(found: Mapping[str, Sequence[float]], other: str, words: tuple[str, str, str, str], form: str) -> str:
        mine, theirs = (100 * np.mean(found[name]) for name in ("bbqrec", other))
        sign = _order(mine, theirs, form)
        near = sign and abs(mine - theirs) <= 100 * max(np.ptp(found[name]) for name in ("bbqrec", other))
        return words[3] if near else words[1 - sign]

    parts = []
    for other in others:
        more = side(cover, other, ("more than", "as much as", "less than", "about as much as"), ".1f")
        even = side(unequal, other, ("less evenly", "as evenly", "more evenly", "about as evenly"), ".1f")
        parts.append(f"{more} {other} ({100 * np.mean(cover[other]):.1f} %) and {even} ({np.mean(unequal[other]):.3f})")
    mine, gini = np.mean(cover["bbqrec"]), np.mean(unequal["bbqrec"])
    return f"bbqrec covers {100 * mine:.1f} % of the catalogue with Gini {gini:.3f}, {', '.join(parts)}."


def cost(minutes: Shares, rows: int, total: float) -> str:
    """Total minutes of all rows, and the dearest variant beside `bbqrec`.

    Args: minutes: variant -> minutes of training and scoring per row. rows: their number. total: minutes of all rows.
    """
    dearest = max(minutes, key=minutes.get)
    beside = "which is the most" if dearest == "bbqrec" else f"and {dearest} takes the most, {minutes[dearest]:.2g}"
    return (
        f"All {rows} rows took {total:.1f} minutes of training and scoring, without tokenizers; a row of bbqrec takes "
        f"{minutes['bbqrec']:.2g} minutes, {beside}."
    )


def way_to_ceiling(means: Shares, ceiling: float, floor: str = "popularity") -> str:
    """How far `bbqrec` and the best variant come on the way from popularity (0 %) to the oracle (100 %)."""
    way = ceiling - means[floor]
    if way <= 0:
        return f"There is no way to go: {floor} ({means[floor]:.4f}) already reaches the oracle ({ceiling:.4f})."
    share = {name: 100 * (value - means[floor]) / way for name, value in means.items()}
    best, mine = max(share, key=share.get), f"{share['bbqrec']:.0f}"
    said = f"bbqrec comes {mine} % of the way from {floor} to the oracle"
    if float(mine) < 0:
        said = f"bbqrec stays below {floor} by {mine[1:]} % of the way from it to the oracle"
    return f"{said}." if best == "bbqrec" else f"{said}; {best} comes furthest, {share[best]:.0f} %."


def separation(ratios: Sequence[float], behaviour: Sequence[float], nuisance: Sequence[float]) -> str:
    """At which ratios the loss terms keep nuisance out of the codes without losing behaviour.

    Args: behaviour, nuisance: change of the probe gain by the terms, at each ratio.
    """
    good, bad = [], []
    for ratio, more, less in zip(ratios, behaviour, nuisance, strict=True):
        works = _sign(more, "+.2f") >= 0 and _sign(less, "+.2f") < 0
        (good if works else bad).append(f"{ratio:g} ({more:+.2f} and {less:+.2f})")
    parts = [f"less nuisance without less behaviour at ratio {listed(good)}"] if good else []
    parts += [f"not at {listed(bad)}" if good else f"at no ratio less nuisance without less behaviour: {listed(bad)}"]
    return f"The two terms leave {', but '.join(parts if bad else parts[:1])} (changes of behaviour and of nuisance)."


def new_items(of_seeds: Mapping[str, Sequence[float]], targets: int, rival: str, control: str, name: str) -> str:
    """Whether a model finds items that no training saw, and whether backing off and the place in the tree help.

    Args: of_seeds: variant -> Recall@20 on new items of each seed. targets: their number. rival: `name` without backing
        off. control: `name` with random IDs.
    """
    found = {variant: float(np.mean(values)) for variant, values in of_seeds.items()}
    if not any(_sign(value, ".2f") for value in found.values()):
        return f"No model finds any of the {targets} new targets, so these runs do not show whether backing off helps."
    words = {1: "more than", 0: "as many as", -1: "fewer than"}
    parts = []
    for other, what in ((rival, "without backing off"), (control, "with random IDs")):
        side = _order(found[name], found[other], ".2f")
        agree = [_order(one, two, ".2f") == side for one, two in zip(of_seeds[name], of_seeds[other], strict=True)]
        often = "" if all(agree) else f"; so in {sum(agree)} of {len(agree)} seeds only"
        parts.append(f"{words[side]} {what} ({found[other]:.2f}{often})")
    best = max(found, key=found.get)
    most = "" if _order(found[best], found[name], ".2f") == 0 else f"; {best} finds the most ({found[best]:.2f})"
    return f"{name} finds {found[name]:.2f} of {targets} new targets, {' and '.join(parts)}{most}."


def sizes(gain: Shares, apart: float, at_end: Collection[str]) -> str:
    """Which size gains most over its value in the preset, and whether seeds differ by less.

    Args: gain: name of the size -> best mean on validation minus that of the preset's value. apart: mean difference of
        two seeds of one size. at_end: sizes whose best value is the smallest or the largest that was tried.
    """
    most = max(gain, key=gain.get)
    if _sign(gain[most], ".3f") <= 0:
        return f"No size that was tried is better than that of the preset; two seeds differ by {apart:.3f} on average."
    beyond = _order(gain[most], apart, ".3f") > 0
    told = "more than" if beyond else "not more than"
    further = (
        " Its best value is the last one that was tried, so one beyond it may be better." if most in at_end else ""
    )
    return (
        f"The largest gain comes from changing the {most} ({gain[most]:+.3f}), {told} two seeds of one size differ on "
        f"average ({apart:.3f}).{further}"
    )
