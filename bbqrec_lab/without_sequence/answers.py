"""Sentences of the notebook: their words follow from the numbers that they quote, as these are printed."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from bbqrec_lab.experiments.statistics import CLEAR
from bbqrec_lab.experiments.tables import listed

Shares = Mapping[str, float]  # name -> value


def _printed(value: float, form: str) -> float:
    """A number as it is printed."""
    return float(f"{value:{form}}")


def leaders(values: Shares, form: str = ".3f") -> list[str]:
    """The names with the highest value, as printed; values that are not known are left out."""
    known = {name: _printed(value, form) for name, value in values.items() if np.isfinite(value)}
    return [name for name, value in known.items() if value == max(known.values())]


def against(one: float, two: float, form: str = ".3f") -> str:
    """`above`, `below` or `equal to`: one number and another, as both are printed."""
    gap = _printed(one, form) - _printed(two, form)
    return "equal to" if gap == 0 else "above" if gap > 0 else "below"


def verdicts(ours: str, compared: pl.DataFrame, form: str = "+.3f") -> str:
    """Which comparisons are clear, each with its difference and interval; above zero `ours` is better.

    Args: compared: columns against, difference, low, high, p_holm; one line per rival.
    """
    better: list[str] = []
    worse: list[str] = []
    unsure: list[str] = []
    columns = ("against", "difference", "low", "high", "p_holm")
    for other, difference, low, high, p in compared.select(columns).iter_rows():
        kind = better if difference > 0 else worse
        if p >= CLEAR or _printed(difference, form) == 0:
            kind = unsure
        kind.append(f"{other} ({difference:{form}} [{low:{form}}, {high:{form}}])")
    parts = {"clearly better than": better, "clearly worse than": worse, "open against": unsure}
    told = "; ".join(f"{words} {listed(names)}" for words, names in parts.items() if names)
    return f"{ours}: {told} (clear: p below {CLEAR} after Holm's correction)."


def sharing(n_items: int, shared: Mapping[str, int]) -> str:
    """How many items have the tokens of another one. Args: shared: input -> number of such items."""
    told = [f"{count:,} for {name}" for name, count in shared.items()]
    return f"Of {n_items:,} items, so many have the tokens of another one: {listed(told)}."


def text_only(signals: Sequence[str]) -> str:
    """What the IDs called text-only are made of, if it is not text; else empty. Args: signals: names of modalities."""
    if list(signals) == ["text"]:
        return ""
    if not signals:
        return "These data have no features: the IDs called text-only come from training events alone."
    return f"These data have no text features: the IDs called text-only come from {listed(list(signals))}."


def queries_seen(seen: bool) -> str:
    """What tokenizers know of the queries of a search; empty if nothing. Args: seen: `Finding.seen`."""
    if not seen:
        return ""
    return (
        "The text features came with these data and were made from all words: the tokenizers of the text-only and the "
        "behaviour-bound IDs have seen the words of the queries too, so the quality of these two may be too high."
    )


def best_form(means: Shares, kind: str) -> str:
    """The input of a kind of ID with the highest value: `KIND FORM`; the first of equal ones."""
    own = {name: value for name, value in means.items() if name.startswith(f"{kind} ")}
    return max(own, key=own.get)


def liking(means: Shares, rival: str) -> str:
    """Which input ranks liked events best, and where the simple rival stands.

    Args: means: input -> AUC, mean over seeds, with the rival. rival: its name.
    """
    others = {name: value for name, value in means.items() if name != rival}
    first = leaders(others)
    top, own = others[first[0]], means[rival]
    beaten = sum(against(value, own) == "above" for value in others.values())
    return (
        f"Of the {len(others)} inputs {listed(first)} {'has' if len(first) == 1 else 'have'} the highest AUC "
        f"({top:.3f}), {against(top, own)} the plain means ({own:.3f}); {beaten} of {len(others)} are above them."
    )


def new_items(everywhere: Shares, new: Shares, rival: str) -> str:
    """What each input loses where the item has no training event.

    Args: everywhere, new: input -> AUC among all test events, and among those of items without training events.
    """
    lost = {name: everywhere[name] - new[name] for name in new if np.isfinite(new[name])}
    if not lost:
        return "No test event has an item without training events, or all have one answer."
    first = leaders(new)
    least, most = min(lost, key=lost.get), max(lost, key=lost.get)
    return (
        f"Without training events {listed(first)} {'ranks' if len(first) == 1 else 'rank'} best (AUC "
        f"{new[first[0]]:.3f}), and {rival} reach {new[rival]:.3f}. Compared with all test events, the changes reach "
        f"from {-lost[most]:+.3f} ({most}) to {-lost[least]:+.3f} ({least})."
    )


def memory(sizes: Mapping[str, int], means: Shares, reference: str) -> str:
    """How small an input can be that ranks at least as well as a reference, as printed.

    Args: sizes: input -> bytes of its table and of what is kept of all items. means: input -> AUC.
    """
    enough = [name for name in sizes if name != reference and against(means[name], means[reference]) != "below"]
    told = f"{reference} needs {_kilobytes(sizes[reference])} and has an AUC of {means[reference]:.3f}"
    if not enough:
        near = max((name for name in sizes if name != reference), key=lambda name: means[name])
        return (
            f"No other input reaches {reference}: {told}; the next, {near}, needs {_kilobytes(sizes[near])} for an AUC "
            f"of {means[near]:.3f}."
        )
    least = min(enough, key=lambda name: sizes[name])
    word = {"above": "more", "below": "less"}.get(against(sizes[least], sizes[reference], ".0f"), "as much")
    return (
        f"{told}; of the {len(enough)} inputs that rank at least as well, {least} is smallest, with "
        f"{_kilobytes(sizes[least])} ({word}) for an AUC of {means[least]:.3f}."
    )


def kinds_of_ids(means: Shares, kinds: Sequence[str]) -> str:
    """The best form of each kind of ID. Args: means: input -> AUC. kinds: of IDs, in the order of the sentence."""
    told = [f"{(form := best_form(means, kind))} {means[form]:.3f}" for kind in kinds]
    return f"The best input by each kind of ID: {listed(told)}."


def _kilobytes(size: int) -> str:
    return f"{size / 1000:,.1f} kB"


def left_out(reasons: Mapping[str, str]) -> str:
    """Which models have no result, and why; empty if all have one. Args: reasons: model -> why."""
    return "; ".join(f"{name} is left out: {why}" for name, why in reasons.items()) + "." if reasons else ""


def strongest(means: Shares, preferred: str) -> str:
    """The model beside which a figure draws all others: `preferred`, and without it the best one.

    Args: means: model -> value, without the models that are compared with it.
    """
    return preferred if preferred in means else max(means, key=means.get)


def baskets(means: Shares, encoders: Sequence[str]) -> str:
    """Which model fills baskets best, and the best set encoder beside the best of the others.

    Args: means: model -> NDCG@10. encoders: the names of the set encoders.
    """
    if not any(means.values()):
        return "No model finds a hidden item, so no order can be given."
    others = {name: value for name, value in means.items() if name not in encoders}
    sets = {name: means[name] for name in encoders}
    simple, learned = leaders(others, ".4f"), leaders(sets, ".4f")
    gap = against(sets[learned[0]], others[simple[0]], ".4f")
    words = "encoder is" if len(learned) == 1 else "encoders are"
    return (
        f"The best set {words} {listed(learned)} with an NDCG@10 of {sets[learned[0]]:.4f}, {gap} "
        f"{listed(simple)} ({others[simple[0]]:.4f}), the best of the others."
    )


def new_in_baskets(recall: Shares, asked: int) -> str:
    """Who finds items that no training saw.

    Args: recall: model -> Recall@20 of new hidden items. asked: their number.
    """
    if not asked:
        return "No hidden item is new."
    found = {name: value for name, value in recall.items() if value > 0}
    if not found:
        return f"No model finds any of the {asked:,} new items."
    first = leaders(found)
    most = found[first[0]]
    told = f"{most:.3f}" if _printed(most, ".3f") > 0 else "below 0.001"
    return (
        f"Of the {asked:,} new items {listed(first)} {'finds' if len(first) == 1 else 'find'} most (Recall@20 "
        f"{told}); {len(recall) - len(found)} of {len(recall)} models find none."
    )


def finding(means: Shares, cost: Mapping[str, float]) -> str:
    """Who finds the item of a query, and whether the binding of IDs to behaviour costs search quality.

    Args: means: searcher -> NDCG@10. cost: the comparison of behaviour-bound with text-only IDs: difference, low, high
        and p_holm.
    """
    first = leaders(means)
    numbers = [cost[name] for name in ("difference", "low", "high")]
    told = f"{numbers[0]:+.3f}, 95 % interval {numbers[1]:+.3f} to {numbers[2]:+.3f}"
    if cost["p_holm"] >= CLEAR or _printed(numbers[0], ".3f") == 0:
        binding = f"whether the binding to behaviour costs search quality is open ({told})"
    elif numbers[0] < 0:
        binding = f"the binding to behaviour costs search quality ({told})"
    else:
        binding = f"the binding to behaviour costs no search quality, it adds some ({told})"
    return f"{listed(first)} {'finds' if len(first) == 1 else 'find'} most (NDCG@10 {means[first[0]]:.3f}); {binding}."


def whole(parts: Mapping[str, str]) -> str:
    """The answer to the question of the page: each question with its sentence, which says why if it has no answer."""
    return " ".join(f"{question} {said.rstrip('.')}." for question, said in parts.items())
