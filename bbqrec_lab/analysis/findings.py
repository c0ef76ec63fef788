"""Sentences about results. Each one chooses its words by the numbers that it quotes, so that it never contradicts them.

They are text, for `notebook.notice`. Numbers that are undefined (NaN) are said to be missing.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl
from jaxtyping import Float

from bbqrec_lab.analysis.neighbours import Against, Profile, Purity, Word
from bbqrec_lab.experiments.tables import listed


def facts_in_words(facts: pl.DataFrame) -> pl.DataFrame:
    """The statistics of a dataset for readers: days instead of seconds, shares in percent, thousands separated.

    Args: facts: columns what and value, from `reading.statistics`.
    """
    return pl.DataFrame([_fact(*line) for line in facts.iter_rows()], schema=facts.columns, orient="row")


def _fact(what: str, value: str) -> tuple[str, str]:
    """One line of `facts_in_words`; a value with letters stays as it is."""
    if what == "first / last timestamp (Unix seconds)":
        days = [f"{datetime.fromtimestamp(float(part), UTC):%Y-%m-%d}" for part in value.split(" / ")]
        return "first / last day", " / ".join(days)
    if what == "density":
        return "pairs of a user and an item with an event", f"at most {100 * float(value):.2g} %"
    if re.search(r"[a-z]", value):
        return what, value
    return what, re.sub(
        r"\d+(\.\d+)?",
        lambda n: f"{float(n[0]):,.{1 if abs(float(n[0])) >= 1 else 2}f}" if n[1] else f"{int(n[0]):,}",
        value,
    )


def words(found: Sequence[Word], items: int, least: int = 5) -> str:
    """The words of a group of items with their counts and lifts.

    Args: items: of the group.
    """
    told = [f"{word} ({inside} of {items} items, lift {lift:.1f})" for word, inside, _, lift in found]
    return ", ".join(told) or f"no word is in {least} of its texts and twice as frequent there as in all texts"


def in_common(found: Profile) -> str:
    """What is typical of a group of items: words, and training events and years against those of all other items."""
    named = {"training events": found.events, "year": found.years}
    known = {name: of for name, of in named.items() if np.isfinite(of.above)}
    order = sorted(known, key=lambda name: -abs(known[name].above - 0.5))
    return "; ".join([f"words: {words(found.words, found.items)}", *(_typical(name, known[name]) for name in order)])


def _typical(name: str, of: Against) -> str:
    """One number of `in_common`; the share of pairs is that in which the items of the group are on the named side."""
    more, less = {"training events": ("more training events", "fewer training events"), "year": ("later", "earlier")}[
        name
    ]
    middle = f"median {name} {of.inside:g}, of all items {of.everywhere:g}"
    side = _compared(100 * of.above, 50, ".0f")
    if not side:
        return f"{more} than another item as often as not ({middle})"
    share = 100 * max(of.above, 1 - of.above)
    return f"{more if side > 0 else less} than another item in {share:.0f} % of pairs ({middle})"


def shared_users(likeness: Purity) -> str:
    """Whether two items with the same first code share more users than any two; likeness: cosine of sets of users."""
    (any_two, same), errors = likeness.mean[:2], likeness.error[:2]
    if np.isnan(same) or np.isnan(any_two):
        return "No two items with the same first code have training events, so their users cannot be compared."
    told = f"{same:.3f} against {any_two:.3f} (mean cosine of the sets of users)"
    if not abs(same - any_two) > 2 * np.hypot(*errors):  # NaN: too few pairs to tell
        return f"Two items with the same first code share about as many users as any two items: {told}."
    much = "more" if same > any_two else "fewer"
    return f"Two items with the same first code share {much} users than any two items: {told}."


def above_chance(share: float, chance: float) -> bool:
    """Whether signals agree more often than by chance: for half a per cent more of the items at least."""
    return share - chance >= 0.005


def agreement(values: Mapping[str, tuple[float, float]]) -> list[str]:
    """How often two signals of an item have the same code, and how often by chance, in per cent, one sentence per row.

    Args: values: name of the pair and level -> (share, chance), both in [0, 1].
    """
    if not values:
        return ["No item has two signals here, so there is no agreement to measure."]
    told = []
    for name, (share, chance) in values.items():
        word = "as often as"
        if above_chance(share, chance):
            word = "more often than"
        elif above_chance(chance, share):
            word = "less often than"
        told.append(f"{name}: the same code for {100 * share:.1f} % of items, {word} by chance ({100 * chance:.1f} %).")
    return [*told, f"In short: {agreeing(values)} (more often: for half a per cent more of the items at least)."]


def agreeing(values: Mapping[str, tuple[float, float]]) -> str:
    """In how many comparisons signals agree more often than by chance, and for how many items at all.

    Args: values: as in `agreement`.
    """
    if not values:
        return "no item has two signals that could agree"
    above, shares = sum(above_chance(*pair) for pair in values.values()), [100 * share for share, _ in values.values()]
    least, most = f"{min(shares):.1f}", f"{max(shares):.1f}"
    reach = f"{least} %" if least == most else f"{least} to {most} %"
    half = "most items have different codes in each signal"
    if float(least) >= 50:
        half = "most items have the same code in both signals"
    elif float(most) >= 50:
        half = "only some of the pairs have the same code for most items"
    return (
        f"two signals of an item choose the same code more often than by chance in {above} of {len(values)} "
        f"comparisons, and do so for {reach} of the items: {half}"
        if above
        else f"no two signals choose the same code more often than by chance ({reach} of the items)"
    )


def less_nuisance(quantized: Mapping[str, tuple[float, float]], whole: str = "both terms") -> list[str]:
    """What each term changes in the quantized parts: gain of the probes with all terms and without one.

    Args: quantized: setting -> (gain for the behaviour factor, gain for the nuisance). whole: the setting with all.
    """
    kept, left = quantized[whole]
    told = []
    for name, (behaviour, nuisance) in quantized.items():
        if name != whole:
            words = {1: "more", 0: "equally much", -1: "less"}
            told.append(
                f"{whole} against {name}: {words[_compared(left, nuisance, '.2f')]} nuisance in the quantized parts "
                f"({left:.2f} against {nuisance:.2f}) and {words[_compared(kept, behaviour, '.2f')]} behaviour "
                f"({kept:.2f} against {behaviour:.2f})."
            )
    return told


def separated(gains: Mapping[str, Mapping[str, float]], planted: bool) -> str:
    """Whether the behaviour parts of a dataset know other factors than the specific parts.

    Args: gains: factor -> part -> gain of a probe, from `probes.mean_gains`. planted: whether the factors are the true
        ones, named `behaviour factor` and `own nuisance`.
    """
    known = {name: of for name, of in gains.items() if {"behaviour", "specific"} <= of.keys()}
    if not known:
        return "No modality has both parts and a factor to probe for, so a separation cannot be seen here."
    more = [name for name, of in known.items() if _compared(of["behaviour"], of["specific"], ".2f") > 0]
    if not planted:
        told = f"The behaviour parts know more than the specific parts about {len(more)} of {len(known)} factors"
        return (
            f"{told}. Which of these factors are behaviour and which are nuisance is not known on real data, so this "
            "shows where the information went, and not whether behaviour and nuisance are separated."
        )
    right = {name for name in more if "nuisance" not in name} | {n for n in known if "nuisance" in n and n not in more}
    words = {0: "not separated", len(known): "separated"}.get(len(right), "separated only in part")
    parts = [
        f"{n}: {of['behaviour']:.2f} in behaviour, {of['specific']:.2f} in specific parts" for n, of in known.items()
    ]
    return f"Behaviour and nuisance are {words}: {'; '.join(parts)}."


def dependence(values: Mapping[str, tuple[float, float]]) -> list[str]:
    """Which parts depend on each other: normalised HSIC against the level of 95 % of random pairings."""
    told = []
    for name, (value, chance) in values.items():
        clear = "they depend on each other" if value > chance else "no dependence is visible"
        told.append(f"{name}: {value:.2f}, by chance up to {chance:.2f}: {clear}.")
    return told


def shared_prefixes(
    recommended: Float[np.ndarray, "lengths"],
    drawn: Float[np.ndarray, "lengths"],
    without: Float[np.ndarray, "lengths"],
) -> list[str]:
    """Whether recommended items share more codes with the history than random items, and than those of `item-knn`.

    Args: shares of items by the number of leading codes that they share with the closest item of the history, from 0.
        without: of the items that a model without codes recommends.
    """
    mean, other, plain = (float(values @ np.arange(len(values))) for values in (recommended, drawn, without))
    first, other_first, plain_first = (f"{1 - values[0]:.0%}" for values in (recommended, drawn, without))
    told = [
        f"Recommended items share {mean:.2f} codes on average, random ones {other:.2f}, those of item-knn {plain:.2f}."
    ]
    numbers = f"{first} of recommended and {other_first} of random items share a first code"
    if mean > other + 0.02:
        told.append(f"That is more than random ({numbers}): recommendations and shared codes go together.")
    elif mean < other - 0.02:
        told.append(f"That is fewer than random ({numbers}): the list leads away from the codes of the history.")
    else:
        told.append(f"That is about as many as random ({numbers}): a shared prefix does not explain a recommendation.")
    side = "more than" if mean > plain + 0.02 else "fewer than" if mean < plain - 0.02 else "about as many as"
    told.append(
        f"It is {side} with item-knn ({plain_first} share a first code), which has never seen a code"
        + (
            ". What is beyond item-knn can have other reasons too: notebook 05 compares with random codes."
            if side == "more than"
            else ": this figure is no evidence that the codes are the reason for a recommendation."
        )
    )
    return told


def beam_loss(beam: float, exact: float, width: int) -> str:
    """Whether a beam found the most probable IDs.

    Args: beam: probability of the IDs of the beam together. exact: of the `width` most probable IDs, by exact scoring.
    """
    if _compared(100 * beam, 100 * exact, ".1f") < 0:
        return (
            f"By exact scoring the {width} most probable IDs have {exact:.1%}: this beam lost some of them, because "
            "their first codes were not kept. A wider beam loses less."
        )
    return f"By exact scoring the {width} most probable IDs have {exact:.1%} too: this beam lost nothing that counts."


def recall_against(ours: float, popularity: float, n_items: int) -> str:
    """Recall@10 of bbqrec against popularity and random guessing."""
    order = "ahead of" if ours > popularity else "behind" if ours < popularity else "equal to"
    return (
        f"Recall@10 of bbqrec is {ours:.3f}, {order} popularity with {popularity:.3f}. Random guessing gives about "
        f"{min(10 / n_items, 1):.3f}."
    )


def ties(steps: float, users: float) -> list[str]:
    """What equal times mean for the order: shares of steps, and of users whose last two events have the same time."""
    if not steps:
        return ["Every event has its own time within its user's history: the data give the whole order."]
    told = [f"{100 * steps:.1f} % of steps take zero time: for these steps the data do not give the order."]
    if users:
        told.append(
            f"For {100 * users:.1f} % of users the test item and the validation item have the same time: the choice "
            "between the two is arbitrary."
        )
    else:
        told.append("No user's last two events have the same time, so no test item is an arbitrary choice.")
    return told


def repeats(count: int) -> str:
    """What removing the items of the history from the recommendations (filtered) can do."""
    if not count:
        return "No event repeats an earlier item of its user: removing seen items (filtered) can only help."
    return (
        f"{count:,} events repeat an earlier item of the same user: removing seen items (filtered) makes these "
        "impossible to find."
    )


def cold(items: float, targets: float) -> list[str]:
    """Shares of items and of test targets without a training event."""
    if not items:
        return ["Every item has a training event, so a model that uses only item IDs can find each test target."]
    told = [f"{100 * items:.1f} % of items have no training event; a model knows them only by their features."]
    if targets:
        told.append(
            f"{100 * targets:.1f} % of test targets are such items: a model that uses only item IDs misses them."
        )
    else:
        told.append("No test target is such an item.")
    return told


def learned_map(weight: Mapping[str, float], epoch: Mapping[str, int], epochs: int) -> list[str]:
    """Whether a model with a table attends better, and learns faster, than the same model without one.

    Args: weight: on the correct note, of `learned table` and `no table`, in [0, 1]. epoch: in which each one reached
        the goal, `epochs` + 1 if it never did.
    """
    with_it, without = (weight[name] for name in ("learned table", "no table"))
    where = "more" if with_it > without + 0.02 else "less" if with_it < without - 0.02 else "about the same"
    told = [f"On the correct note: {with_it:.2f} with the learned table, {without:.2f} without it: {where} with it."]
    fast, slow = (epoch[name] for name in ("learned table", "no table"))
    says = [f"in epoch {each}" if each <= epochs else f"not within {epochs} epochs" for each in (fast, slow)]
    if fast < slow:
        ending = "here the table saves the model some of the work"
    elif fast > slow:
        ending = "here the table does not make learning faster"
    else:
        ending = "here both learn equally fast" if fast <= epochs else "here neither learns the task"
    return [*told, f"NDCG@10 reaches 0.95 {says[0]} with the table and {says[1]} without: {ending}."]


def _compared(one: float, two: float, form: str) -> int:
    """1, 0 or -1: whether one number is above, equal to or below another, as both are printed."""
    return int(np.sign(float(f"{one:{form}}") - float(f"{two:{form}}")))


def first_look(
    items: int, codes: int, firsts: int, outputs: Sequence[str], weight: float, recall: Mapping[str, float]
) -> str:
    """What a semantic ID is in this run, how the model recommends with it, and how well.

    Args: codes: of an ID. firsts: different first codes in use. outputs: of the model, from `explanations.chances`.
        weight: of the ID in the score where there are two outputs. recall: Recall@10 in [0, 1] of `bbqrec` and
        `popularity`.
    """
    ways = {"by its ID": "generates the ID of the next item code by code", "direct": "scores each item directly"}
    ours, simple = (100 * recall[name] for name in ("bbqrec", "popularity"))
    word = {1: "more than", 0: "as much as", -1: "less than"}[_compared(ours, simple, ".1f")]
    return (
        f"A semantic ID is a name of {codes} codes that is made from content and behaviour, here for {items:,} items "
        f"with {firsts} different first codes. The model {' and '.join(ways[name] for name in outputs)}"
        f"{f' (in the score the ID has weight {weight:g}, the item 1)' if len(outputs) > 1 else ''}; among ten "
        f"recommended items {ours:.1f} % of users find their hidden item, {word} with popularity ({simple:.1f} %)."
    )


def content(users: int, items: int, modalities: Sequence[str], events: tuple[int, int, int]) -> str:
    """What a dataset has, and how it is split. Args: events: for training, validation and test."""
    learn, valid, test = events
    given = f"with {listed(modalities)} as modalities" if modalities else "without a modality"
    return (
        f"{users:,} users and {items:,} items {given}; {learn:,} events are for training, {valid:,} are validation and "
        f"{test:,} test targets"
    )


def traps(tied: float, tied_end: float, rho: float, limit: float, lacking: float, cold: float) -> str:
    """What the traps of notebook 01 mean for one dataset.

    Args: tied: share of steps that take no time. tied_end: share of users whose last two events have the same time.
        rho: rank correlation of the number of events with a numbering by first appearance, NaN if it is not defined.
        limit: two standard deviations of chance. lacking: share of items without at least one signal. cold: share of
        items without a training event.
    """
    order = "the times give the whole order" if not tied else f"the order of {100 * tied:.1f} % of steps is not known"
    if tied:
        order += (
            f", among them the last step of {100 * tied_end:.1f} % of users"
            if tied_end
            else ", but that of every last step is"
        )
    if np.isnan(rho):
        numbers = "no numbering can reveal popularity, which is equal for all items"
    elif abs(rho) > limit:
        numbers = f"item numbers by first appearance would reveal popularity (rank correlation {rho:+.2f}: "
        numbers += f"popular items have {'small' if rho < 0 else 'large'} numbers), so rows are permuted"
    else:
        numbers = f"item numbers by first appearance hardly reveal popularity (rank correlation {rho:+.2f})"
    signals = "every item has every signal" if not lacking else f"{100 * lacking:.1f} % of items lack a signal"
    unseen = "none is without a training event" if not cold else f"{100 * cold:.1f} % have no training event"
    return f"In these data {order}; {numbers}; {signals}, and {unseen}."


def what_codes_know(
    shape: tuple[int, int], gains: Mapping[str, Mapping[str, float]], agree: Mapping[str, tuple[float, float]]
) -> str:
    """How an ID is made and which factors its codes contain.

    Args: shape: levels and codes per level. gains: factor -> part -> gain of a probe, from `probes.mean_gains`. agree:
        as in `agreement`.
    """
    known = [
        f"{factor} {parts['codes']:.2f}" + (f" ({parts['raw']:.2f})" if "raw" in parts else "")
        for factor, parts in gains.items()
        if "codes" in parts
    ]
    raw = any("raw" in parts for parts in gains.values())
    where = "in an ID (in brackets: in the raw features, mean over modalities)" if raw else "in an ID"
    knows = f"a linear probe finds {where} {', '.join(known)}, where 0 is chance and 1 is always right"
    if not known:
        knows = "what the codes know cannot be probed, because no factor has two classes"
    return (
        f"An item's signals are averaged and quantized in {shape[0]} levels of {shape[1]} codes; {knows}; "
        f"{agreeing(agree)}."
    )


def kept_together(name: str, share: float, chance: tuple[float, float]) -> str:
    """How many pairs of items with one first code another tokenizer keeps together, against the range of chance.

    Args: share: mean of both directions, in [0, 1]. chance: from `recovery.together_by_chance`; NaN without such pairs.
    """
    low, high = chance
    if not np.isfinite([share, low, high]).all():
        return f"{name}: not known, because no two items share a first code"
    side = "more than" if share > high else "less than" if share < low else "no more than"
    return f"{name} {100 * share:.1f} %, {side} by chance ({100 * low:.1f} to {100 * high:.1f} %)"


def code_meaning(code: int, found: Profile, kept: Mapping[str, tuple[float, tuple[float, float]]]) -> str:
    """What the items of one first code have in common, and how much of its grouping other tokenizers keep.

    Args: found: of the items with this code. kept: tokenizer -> (share, chance), as in `kept_together`.
    """
    parts = [kept_together(name, *of) for name, of in kept.items()]
    other = f" Of the pairs of items with one first code, others keep together: {'; '.join(parts)}." if parts else ""
    count = f"{found.items} item{'s' * (found.items != 1)}"
    typical = f"First code {code} has {count}; typical are {in_common(found)}."
    return f"A code means what its items have in common. {typical}{other}"


def attention_to_alike(rise: Float[np.ndarray, "layers channels H"]) -> str:
    """Whether heads give alike items more attention or less.

    Args: rise: offset of the most alike bucket minus that of the least alike one, in logits.
    """
    summed = rise.sum(1).round(2)  # as printed
    more, less = int((summed > 0).sum()), int((summed < 0).sum())
    told = ", ".join(f"{value:+.2f}" for value in summed.flat)
    return (
        "A pair that is most alike in every channel, against one that is least alike, gets more attention in "
        f"{more} and less in {less} of {summed.size} heads ({told} logits, the sums over channels)"
    )


def reweighting(
    rise: Float[np.ndarray, "layers channels H"],
    moved: float,
    peak: float,
    effects: Mapping[str, tuple[float, float, float]],
) -> str:
    """How the offsets change attention, and whether each reweighting helps.

    Args: rise: as in `attention_to_alike`. moved: share of the weight that moves on average in the head that changes
        most. peak: the largest offset, in logits. effects: kind of reweighting -> (difference in NDCG@10, low, high),
        95 % over users.
    """
    found = []
    for name, (difference, low, high) in effects.items():
        word = (
            "better with it" if low > 0 else "worse with it" if high < 0 else "open, because the interval contains zero"
        )
        found.append(f"{name} changes it by {difference:+.4f} ({low:+.4f} to {high:+.4f}): {word}")
    return (
        f"{attention_to_alike(rise)}. The offsets move {100 * moved:.1f} % of the weight in the head that changes "
        f"most; the largest offset of all layers, heads and channels is {peak:+.2f} logits, a factor of "
        f"{np.exp(peak):.2f}. NDCG@10 of this one seed: {'; '.join(found)}."
    )
