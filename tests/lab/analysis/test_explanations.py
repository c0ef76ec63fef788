"""What the live views ask of a model: the model's own numbers, and those of the same model with other offsets."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from answering import HISTORY, SIZES, N, maps_of, scores_of, tiny_recommender
from tiny import semantic_ids

from bbqrec_core import Recommender
from bbqrec_lab.analysis import explanations

CODES = semantic_ids(N, SIZES).code_ids


@pytest.fixture(scope="module")
def model() -> Recommender:
    return tiny_recommender()


@pytest.mark.parametrize("form", ["buckets", "linear"])
def test_scale_one_is_the_model_bit_for_bit(form: str) -> None:
    model = tiny_recommender(similarity_form=form)
    same = explanations.rescaled(model, 1.0)
    assert torch.equal(explanations.attention(same, HISTORY), maps_of(model, HISTORY))
    assert torch.equal(explanations.all_scores(same, [HISTORY])[0], scores_of(model, HISTORY))


@pytest.mark.parametrize("form", ["buckets", "linear"])
def test_scale_zero_is_attention_without_offsets_bit_for_bit(form: str) -> None:
    model = tiny_recommender(similarity_form=form)
    zeroed, trained = explanations.rescaled(model, 0.0), maps_of(model, HISTORY)
    found, scores = explanations.attention(zeroed, HISTORY), explanations.all_scores(zeroed, [HISTORY])[0]
    assert not torch.allclose(found, trained)
    model.model.reweighting = None
    assert torch.equal(found, maps_of(model, HISTORY))
    assert torch.equal(scores, scores_of(model, HISTORY))


def test_another_scale_multiplies_the_table_and_leaves_the_model_alone(model: Recommender) -> None:
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    found = explanations.rescaled(model, 1.5)
    assert torch.equal(found.model.reweighting.table, 1.5 * model.model.reweighting.table)
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    assert found.model.position.weight is model.model.position.weight
    assert found.model.head.vectors is found.model.vectors


def test_signals_off_silence_every_channel_that_compares_them(model: Recommender) -> None:
    assert explanations.signal_names(model) == ("text", "image", "id")
    found = explanations.rescaled(model, off=("image",)).model.reweighting
    silent = {c.name for c, table in zip(found.channels, found.table[0], strict=True) if not table.any()}
    assert silent == {"image-image", "text-image", "image-text"} == set(explanations.channels_of(model, ("image",)))
    everything = explanations.rescaled(model, off=explanations.signal_names(model))
    assert torch.equal(
        explanations.attention(everything, HISTORY), explanations.attention(explanations.rescaled(model, 0.0), HISTORY)
    )


def test_a_model_without_offsets_stays_as_it_is() -> None:
    plain = tiny_recommender(reweight=False)
    assert explanations.rescaled(plain, 2.0, ("text",)) is plain
    assert explanations.signal_names(plain) == ()
    assert explanations.channels_of(plain, ("text",)) == []


def test_models_that_read_codes_and_counts_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="granularity item"):
        explanations.readable(tiny_recommender(granularity="code"))
    with pytest.raises(ValueError, match="int has no attention"):
        explanations.readable(3)


def test_an_empty_history_is_refused(model: Recommender) -> None:
    with pytest.raises(ValueError, match="history is empty"):
        explanations.unfold(model, [], 3)


def test_known_items_leave_the_ranking_and_ties_go_by_row(model: Recommender) -> None:
    scores = explanations.all_scores(model, [HISTORY], {7, 3})[0]
    ranks = explanations.ranking(scores)
    assert set(np.flatnonzero(ranks == 0)) == {0, 3, 7}
    assert sorted(ranks[ranks > 0]) == list(range(1, N - 1))
    assert explanations.ranking(torch.tensor([-torch.inf, 1.0, 2.0, 1.0])).tolist() == [0, 2, 1, 3]
    assert explanations.best(np.array([0, 2, 1, 3]), 2) == [2, 1]
    assert explanations.best(np.array([0, 2, 1, 3]), 9) == [2, 1, 3]


@pytest.mark.parametrize("width", [1, 4, 50])
def test_the_last_depth_is_the_beam_of_the_recommender(model: Recommender, width: int) -> None:
    depths = explanations.unfold(model, HISTORY, width)
    items, scores = model.beam(torch.tensor([HISTORY]), width, torch.tensor([sorted(set(HISTORY))]))
    real = items[0] > 0
    ids = CODES[items[0][real].numpy()]
    _, first = np.unique(ids, axis=0, return_index=True)
    lines = np.sort(first)
    assert np.array_equal(depths[-1].prefixes, ids[lines])
    assert np.array_equal(depths[-1].scores, scores[0][real].numpy()[lines])
    assert explanations.beam_items(model, HISTORY, width) == items[0][real][:width].tolist()


def test_each_depth_grows_from_the_one_before(model: Recommender) -> None:
    depths = explanations.unfold(model, HISTORY, 4)
    assert [depth.prefixes.shape[1] for depth in depths] == [1, 2, 3]
    for above, depth in pairwise(depths):
        assert np.array_equal(depth.prefixes[:, :-1], above.prefixes[depth.parent])
        assert (depth.scores <= above.scores[depth.parent]).all()
        assert (np.diff(depth.scores) <= 0).all()


def test_a_wide_beam_counts_every_item_left_below_every_prefix(model: Recommender) -> None:
    codes = CODES
    for depth in explanations.unfold(model, HISTORY, 99):
        length = depth.prefixes.shape[1]
        left = Counter(tuple(codes[row][:length]) for row in range(1, N + 1) if row not in HISTORY)
        assert {tuple(p): int(n) for p, n in zip(depth.prefixes, depth.items, strict=True)} == dict(left)
        assert depth.nodes == len({tuple(code[:length]) for code in codes[1:]})


def test_a_model_without_codes_has_nothing_to_unfold() -> None:
    with pytest.raises(ValueError, match="no codes to unfold"):
        explanations.unfold(tiny_recommender(output="items"), HISTORY, 3)


@pytest.mark.parametrize("output", ["codes", "items", "both"])
def test_leaving_an_event_out_is_asking_with_the_shorter_history(output: str) -> None:
    model, asked = tiny_recommender(output=output), [1, 7, 20]
    whole, shorter = explanations.without_each(model, HISTORY, asked)
    assert torch.allclose(whole, scores_of(model, HISTORY)[asked], atol=1e-5)
    for t in range(len(HISTORY)):
        alone = scores_of(model, HISTORY[:t] + HISTORY[t + 1 :])[asked]
        assert torch.allclose(shorter[t], alone, atol=1e-5)


def test_only_what_the_model_reads_is_left_out(model: Recommender) -> None:
    longer = [1, 2, *HISTORY]
    assert torch.equal(
        explanations.without_each(model, longer, [4])[1], explanations.without_each(model, HISTORY, [4])[1]
    )
    assert len(explanations.without_each(model, [5], [4])[1]) == 0


def test_the_latest_event_with_the_longest_shared_prefix_is_named() -> None:
    codes = np.array([[0, 0, 0], [1, 2, 3], [1, 2, 0], [1, 0, 3], [1, 2, 1], [4, 2, 3], [1, 2, 3]])
    assert explanations.shared_codes(codes, 1, [2, 3, 4, 5]) == (2, 2)
    assert explanations.shared_codes(codes, 1, [6, 2]) == (0, 3)
    assert explanations.shared_codes(codes, 1, [5]) == (0, 0)


def test_the_score_of_one_leaf_is_that_among_all(model: Recommender) -> None:
    every = explanations.all_scores(model, [HISTORY])[0]
    with torch.no_grad():
        prompt = model.model.prompt(torch.tensor([HISTORY])).select(torch.zeros(N, dtype=torch.long))
        found = explanations.leaf_scores(prompt, model.tree, model.tree.leaf[1:])
    torch.testing.assert_close(found, every[1:])


@pytest.mark.parametrize("output", ["codes", "items", "both"])
def test_chances_are_the_probabilities_of_each_output(output: str) -> None:
    model = tiny_recommender(output=output)
    found, scores = explanations.chances(model, HISTORY), explanations.all_scores(model, [HISTORY])[0]
    assert list(found) == {"codes": ["by its ID"], "items": ["direct"], "both": ["by its ID", "direct"]}[output]
    logs = {name: np.log(values[1:]) for name, values in found.items()}
    if output == "both":
        logs = {"whole": model.model.config.w_codes * logs["by its ID"] + logs["direct"]}
    (whole,) = logs.values()
    shift = scores.numpy()[1:] - whole  # the output `items` has logits, not log-probabilities
    np.testing.assert_allclose(shift, shift[0] if output == "items" else 0, atol=1e-4)
