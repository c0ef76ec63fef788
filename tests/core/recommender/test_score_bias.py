"""Score reweighting and the offset of seen items: counts, masses, offsets, training, and their place in a model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import normal, recommender_config, semantic_ids

from bbqrec_core import EvaluationConfig, Sequences, build_recommender, fit_recommender
from bbqrec_core.dataset import Dataset
from bbqrec_core.metrics import sample_users
from bbqrec_core.recommender import fit, score_bias
from bbqrec_core.recommender.decoding import Frontier, beam_search, exact_scores
from bbqrec_core.recommender.fit import EARLY, TRUSTS, fit_offsets
from bbqrec_core.recommender.score_bias import (
    DECAYS,
    HORIZON,
    PRIOR,
    REACH,
    ScoreBias,
    compare_content,
    count_pairs,
)

N, USERS = 13, 30
NODES = torch.tensor([[0, 0]] + [[item % 3, item % 3 * 2 + item % 2] for item in range(N)])


def histories(seed: int = 0, most: int = 9) -> list[np.ndarray]:
    """Histories without repeats."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(N)[: rng.integers(3, most)].astype(np.int32) + 1 for _ in range(USERS)]


def pack(parts: list[np.ndarray]) -> Sequences:
    return Sequences(np.append(0, np.cumsum([len(part) for part in parts])).astype(np.int64), np.concatenate(parts))


def features(seed: int = 0) -> dict[str, np.ndarray]:
    """Two modalities; a third of the items lacks the second."""
    text, image = (normal(N + 1, width, seed=seed + width).numpy().astype(np.float32) for width in (4, 7))
    image[::3] = 0
    text[0] = image[0] = 0
    return {"text": text, "image": image}


def dataset(parts: list[np.ndarray]) -> Dataset:
    """Data whose training histories are `parts`."""
    whole = [np.append(part, part[-2:]) for part in parts]
    return Dataset(n_items=N, sequences=pack(whole), features=features())


def padded(*parts: np.ndarray) -> torch.Tensor:
    width = max(map(len, parts))
    return torch.tensor([[*part.tolist(), *[0] * (width - len(part))] for part in parts])


def observed(parts: list[np.ndarray], *, low: float = -16.0, **changes: object) -> ScoreBias:
    """Counts of histories, with buckets that reach below every mass."""
    made = ScoreBias(N, recommender_config(score_reweight=True, partners=N, **changes), NODES)
    made.observe(dataset(parts))
    made.edges.copy_(torch.tensor([low, 0.8]))
    return made.requires_grad_(False)


def random_tables(scoring: ScoreBias) -> ScoreBias:
    with torch.no_grad():
        for number, value in enumerate(scoring.parameters()):
            value.copy_(normal(*value.shape, seed=number))
    return scoring


def counted(parts: list[np.ndarray]) -> np.ndarray:
    """n_ij by a loop over all pairs of events."""
    found = np.zeros((N + 1, N + 1))
    for part in parts:
        for a, first in enumerate(part):
            for b, then in enumerate(part[a + 1 :], start=a + 1):
                if b - a <= REACH and first != then:
                    found[first, then] += 0.9 ** (b - a - 1)
                    found[then, first] += 0.5 * 0.9 ** (b - a - 1)
    return found


def cosines() -> np.ndarray:
    """max(cosine, 0)^3 of centred features, by a loop over pairs; a pair lacks the modalities that one of it lacks."""
    parts = {}
    for name, values in features().items():
        real = [item for item in range(1, N + 1) if values[item].any()]
        centred = {item: values[item] - values[real].mean(0) for item in real}
        parts[name] = {item: vector / np.linalg.norm(vector) for item, vector in centred.items()}
    found = np.zeros((N + 1, N + 1))
    for i in range(1, N + 1):
        for j in range(1, N + 1):
            both = [vectors[i] @ vectors[j] for vectors in parts.values() if i in vectors and j in vectors]
            sizes = [sum(item in vectors for vectors in parts.values()) for item in (i, j)]
            if i != j:
                found[i, j] = max(sum(both) / np.sqrt(sizes[0] * sizes[1]), 0) ** 3
    return found


def mass_of(history: np.ndarray, parts: list[np.ndarray], channel: int) -> np.ndarray:
    """The mass of every item after a history, from its definition."""
    counts, events, decay = counted(parts), np.bincount(np.concatenate(parts), minlength=N + 1), DECAYS[channel]
    similar = counts * ((events[:, None] + PRIOR) * (events + PRIOR)) ** -0.5 if channel < 2 else cosines()
    last = history[::-1][:HORIZON]
    mass = sum(decay**back * similar[item] for back, item in enumerate(last))
    mass[history] = 0
    return mass


def test_pairs_are_counted_by_distance_and_order():
    parts = [*histories(), np.arange(1, N + 1, dtype=np.int32).repeat(3)]  # the last is longer than REACH, with repeats
    partners, counts, events = count_pairs(pack(parts), N, N)
    table = np.zeros((N + 1, N + 1))
    np.put_along_axis(table, partners.numpy(), counts.numpy(), 1)
    np.testing.assert_allclose(table, counted(parts), rtol=1e-5)
    assert events.tolist() == np.bincount(np.concatenate(parts), minlength=N + 1).tolist()
    assert bool((partners.diff() >= 0).all())


def test_the_best_partners_are_kept():
    partners, counts, events = count_pairs(pack(histories()), N, 4)
    value = counted(histories()) * (events.numpy() + PRIOR) ** -0.5
    for item in range(1, N + 1):
        kept = [int(partner) for partner, count in zip(partners[item], counts[item], strict=True) if count > 0]
        assert np.sort(value[item, kept]) == pytest.approx(np.sort(value[item])[-len(kept) :], rel=1e-5)


def test_masses_are_those_of_their_definition():
    long = np.tile(np.arange(1, 7, dtype=np.int32), 4)  # more events than HORIZON
    made, asked = observed(histories()), [*histories(1), long]
    masses, seen = made.masses(padded(*asked))
    assert len(masses) == len(DECAYS)
    for channel in range(len(DECAYS)):
        wanted = np.stack([mass_of(history, histories(), channel) for history in asked])
        np.testing.assert_allclose(masses[channel].numpy(), wanted, rtol=1e-4, atol=1e-6)
    assert [set(row.nonzero()[:, 0].tolist()) for row in seen] == [set(part.tolist()) for part in asked]


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_own_pairs_left_out_are_counts_without_the_user(cut):
    parts = histories(most=N)
    made = observed(parts)
    for user in (number for number, part in enumerate(parts) if len(part) > cut):
        read, later = parts[user][:cut], parts[user][cut:]
        masses, _ = made.masses(padded(read), padded(later))
        others = [part for number, part in enumerate(parts) if number != user]
        for channel in range(len(DECAYS)):
            wanted = mass_of(read, others, channel)
            np.testing.assert_allclose(masses[channel][0].numpy(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("keep", [4, N])
def test_the_items_most_alike_are_kept(keep):
    alike, values = compare_content(dataset(histories()), keep)
    wanted = cosines()
    for item in range(N + 1):
        assert values[item].tolist() == pytest.approx(np.sort(wanted[item])[::-1][:keep].tolist(), abs=1e-5)
        assert values[item].tolist() == pytest.approx(wanted[item, alike[item]].tolist(), abs=1e-5)


def test_data_without_features_have_no_content():
    _, values = compare_content(Dataset(n_items=N, sequences=pack(histories())), 4)
    assert values.shape == (N + 1, 4)
    assert not values.any()


@pytest.mark.parametrize("trust", [0.0, 0.5, 1.0, 4.0])
def test_offsets_of_nodes_are_means_over_the_items_below_and_seen_nodes_are_those_without_others(trust):
    """log sum exp - trust log(number): the mean at trust 1, the sum at trust 0."""
    made, rows = random_tables(observed(histories())), padded(*histories(1))
    made.trust.fill_(trust)
    items, found = made.offsets(rows)
    _, seen = made.masses(rows)
    for depth in (1, 2):
        for user in range(0, len(rows), 5):
            for node in range(int(NODES[1:, depth - 1].max()) + 1):
                below = [item for item in range(1, N + 1) if NODES[item, depth - 1] == node]
                free = [item for item in below if not seen[user, item]]
                wanted = (
                    made.seen[depth] if not free else items[user, free].logsumexp(0) - min(trust, 1) * np.log(len(free))
                )
                assert float(found[depth - 1][user, node]) == pytest.approx(float(wanted), abs=1e-4)


def test_without_the_transformer_ids_are_as_probable_as_the_offsets_of_items_say():
    """With every code of a level below every node: log p(ID) = log softmax(offsets)[item] over items not seen."""
    codes = np.array([[0, 0], [0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])
    ids = replace(semantic_ids(6, (2, 3)), code_ids=codes)
    made = build_recommender(6, ids, recommender_config(output="codes", score_reweight=True, partners=6), 0)
    parts = [part for part in (part[part < 7] for part in histories(most=N)) if len(part) > 1]
    whole = [np.append(part, part[-2:]) for part in parts]
    made.model.scoring.observe(Dataset(n_items=6, sequences=pack(whole)))
    random_tables(made.model.scoring).trust.fill_(0)
    rows = torch.tensor([[1, 2], [5, 3]])
    with torch.no_grad():
        made.model.scoring.seen.fill_(-40)
        found = made.model.prompt(rows).id_scores(made.tree)
        wanted = made.model.scoring.offsets(rows)[0][:, 1:].log_softmax(1)
    free = (rows[:, :, None] != torch.arange(1, 7)).all(1)
    torch.testing.assert_close(found[:, 1:][free], wanted[free], atol=1e-4, rtol=1e-4)


def offset(made: ScoreBias, channel: int, mass: torch.Tensor) -> torch.Tensor:
    """The offset of one mass, from its definition."""
    x = (mass.clamp_min(1e-30).log() - made.edges[channel, 0]) / made.edges[channel, 1]
    if x < 0:
        return torch.zeros(())
    return made.table[channel, min(int(x), made.buckets - 1)] + made.slope[channel] * x


def test_item_offsets_are_looked_up_by_mass():
    made, rows = random_tables(observed(histories(), low=-2.5)), padded(*histories(1))
    (masses, seen), found = made.masses(rows), made.offsets(rows)[0]
    assert any(bool((mass > 0).any()) for mass in masses)
    for user in range(len(rows)):
        for item in range(1, N + 1):
            parts = [offset(made, c, mass[user, item]) for c, mass in enumerate(masses)]
            wanted = sum(parts) + made.seen[0] * seen[user, item]
            assert float(found[user, item]) == pytest.approx(float(wanted), abs=1e-4)


def test_padding_changes_no_offset():
    made, history = random_tables(observed(histories())), histories(1)[0]
    for width in (0, 1, 40):
        wide = F.pad(padded(history), (0, width))
        torch.testing.assert_close(made.offsets(wide), made.offsets(padded(history)))


@pytest.mark.parametrize("cut", [1, 3])
def test_the_loss_is_the_softmax_over_candidates(monkeypatch, cut):
    parts = histories(most=N)
    made = random_tables(observed(parts))
    windows = [part for part in parts if len(part) > cut]
    size = torch.tensor([[len(part) - 1] for part in windows])
    monkeypatch.setattr(score_bias.torch, "rand", lambda *shape, device: (cut - 0.5) / size)
    found, wanted = made.loss(padded(*windows)), []
    for window in windows:
        masses, seen = made.masses(padded(window[:cut]), padded(window[cut:]))
        logits, free = made.item_offsets(masses, seen)[0], [item for item in range(1, N + 1) if not seen[0, item]]
        wanted.append(-logits[int(window[cut])] + logits[free].logsumexp(0))
    assert float(found["loss"]) == pytest.approx(float(torch.stack(wanted).mean()), rel=1e-4)


def test_offsets_learn_a_planted_rule(tmp_path):
    """Item j always follows item j - 1, so it gets the largest offset after it."""
    parts = [np.roll(np.arange(1, N + 1, dtype=np.int32), -shift)[:6] for shift in range(N)] * 4
    model = build_recommender(
        N, None, recommender_config(output="items", score_reweight=True, score_steps=200, partners=N), 0
    ).model
    fit_offsets(model, dataset(parts), 0, tmp_path / "offsets")
    offsets = model.scoring.offsets(torch.arange(1, N)[:, None])[0]
    assert offsets[:, 1:].argmax(1).add(1).tolist() == list(range(2, N + 1))


def test_trained_offsets_do_not_depend_on_the_model_and_repeat(tmp_path):
    found = []
    for number, width in enumerate((6, 12)):
        config = recommender_config(output="items", score_reweight=True, partners=N, width=width)
        model = build_recommender(N, None, config, number).model
        fit_offsets(model, dataset(histories()), 3, tmp_path / str(number))
        found.append(model.scoring.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


# inside a model


@pytest.fixture
def ids():
    return semantic_ids(N, (3, 4))


def models(ids, output: str, **changes: object):
    """The same model with and without score reweighting; the tables are zero."""
    made = []
    for on in (True, False):
        config = recommender_config(
            output=output, score_reweight=on, seen_offset=on, partners=N, max_events=N, **changes
        )
        made.append(build_recommender(N, ids, config, 0))
    made[0].model.scoring.observe(dataset(histories()))
    return made


@pytest.mark.parametrize("output", ["codes", "items", "both"])
def test_zero_tables_are_the_model_without_it_bit_for_bit(ids, output):
    rows, found = padded(*histories(2)), []
    for recommender in models(ids, output):
        model = recommender.model.train()
        torch.manual_seed(0)
        loss = model.loss(rows)["loss"]
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if not name.startswith("scoring")}
        scores = recommender.scores(pack(histories(2)), np.arange(USERS))
        found.append((loss, gradients, scores))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][2], found[1][2])
    for name, gradient in found[1][1].items():
        assert torch.equal(found[0][1][name], gradient) if gradient is not None else found[0][1][name] is None, name


@pytest.mark.parametrize("trust", [1.0, 0.25])
def test_beam_and_exact_scores_agree_with_offsets(ids, trust):
    recommender = models(ids, "codes")[0]
    model, tree, rows = recommender.model, recommender.tree, padded(*histories(3))
    random_tables(model.scoring).trust.fill_(trust)
    with torch.no_grad():
        prompt = model.prompt(rows)
        exact = exact_scores(prompt, tree)
        items, scores = beam_search(Frontier(prompt), tree, N)
        torch.testing.assert_close(scores, exact.gather(1, items), atol=1e-4, rtol=1e-4)
        floor = exact.median(1).values
        above = exact_scores(prompt, tree, floor)
        kept = exact >= floor[:, None]
        torch.testing.assert_close(above[kept], exact[kept], atol=1e-4, rtol=1e-4)
        plain = exact_scores(prompt._replace(offsets=None), tree)
    assert not torch.allclose(exact[:, 1:], plain[:, 1:], atol=1e-2)


@pytest.mark.parametrize("output", ["codes", "items"])
def test_training_and_ranking_give_the_same_offset_to_seen_items(ids, output):
    """With tables at zero, the loss is minus the score of the target."""
    recommender = models(ids, output, dropout=0.0)[0]
    model = recommender.model
    with torch.no_grad():
        model.scoring.seen.copy_(torch.arange(1.0, 1 + len(model.scoring.seen)))
    again = [np.append(part[:-1], part[0]) for part in histories(4)]  # the target was seen
    losses = []
    for part in again:
        window = padded(part)
        first = model.loss(window)["loss"] * (len(part) - 1)
        second = model.loss(window[:, :-1])["loss"] * (len(part) - 2)
        losses.append((first - second).item())
    asked = pack([part[:-1] for part in again])
    scores = recommender.scores(asked, np.arange(USERS)).log_softmax(1) if output == "items" else None
    scores = recommender.scores(asked, np.arange(USERS)) if scores is None else scores
    wanted = [-scores[user, part[-1]].item() for user, part in enumerate(again)]
    assert losses == pytest.approx(wanted, abs=2e-3)


def test_beam_and_exact_scores_of_two_heads_agree_with_offsets(ids):
    recommender = models(ids, "both")[0]
    random_tables(recommender.model.scoring)
    exact = recommender.scores(pack(histories(3)), np.arange(USERS))
    items, scores = recommender.beam(padded(*histories(3)), N)
    torch.testing.assert_close(scores, exact.gather(1, items), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("trust", "weight", "share"), [(0.25, 0.25, 1.0), (4.0, 1.0, 0.25)])
def test_the_score_is_the_trusted_logit_plus_the_offset(trust, weight, share):
    recommender = models(None, "items")[0]
    scoring, asked = random_tables(recommender.model.scoring), pack(histories(5))
    with torch.no_grad():
        rows = padded(*histories(5))
        logits = recommender.model.last_states(rows) @ recommender.model.items.weight.T
        masses, seen = scoring.masses(rows)
        wanted = weight * logits + share * scoring.item_offsets(masses, seen) + seen * scoring.seen[0]
        scoring.trust.fill_(trust)
    torch.testing.assert_close(recommender.scores(asked, np.arange(USERS))[:, 1:], wanted[:, 1:])


def test_trust_is_chosen_on_validation(tmp_path):
    data = Dataset(n_items=N, sequences=pack(histories(6)))
    config = recommender_config(output="items", score_reweight=True, epochs=2)
    found, log = fit_recommender(data, None, config, EvaluationConfig(), 0, tmp_path)
    assert float(found.model.scoring.trust) in [pytest.approx(trust) for trust in TRUSTS]
    assert log.epochs[found.model.config.epochs - 1]["score"] <= max(row["score"] for row in log.epochs)


def test_more_users_than_for_early_stopping_choose_the_trust(tmp_path, monkeypatch):
    data = Dataset(n_items=N, sequences=pack(histories(6)))
    config, few = recommender_config(output="items", score_reweight=True, epochs=2), EvaluationConfig(early_users=1)
    asked, rank = [], fit.early_score
    monkeypatch.setattr(fit, "early_score", lambda *given: asked.append(len(given[2])) or rank(*given))
    found, log = fit_recommender(data, None, config, few, 0, tmp_path)
    assert asked[-len(TRUSTS) :] == [min(4, data.n_users)] * len(TRUSTS)
    assert set(asked[: -len(TRUSTS)]) == {1}
    scores, chosen = {}, float(found.model.scoring.trust)
    for trust in TRUSTS:
        found.model.scoring.trust.fill_(trust)
        scores[trust] = rank(found, data, sample_users(data.n_users, 4), few)
    assert scores[min(TRUSTS, key=lambda trust: abs(trust - chosen))] == max(scores.values())
    assert log.epochs[log.best_epoch - 1]["score"] == pytest.approx(max(scores.values()))


# lag bias


def test_lag_bias_is_added_by_distance_and_starts_at_zero(ids):
    with_lags, without = (
        build_recommender(N, ids, recommender_config(lag_bias=on, max_events=N), 0).model for on in (True, False)
    )
    rows = padded(*histories(7))
    assert torch.equal(with_lags.states(rows)[0], without.states(rows)[0])
    with torch.no_grad():
        with_lags.lag_bias.copy_(normal(*with_lags.lag_bias.shape))
    plain, biased = without.biases(rows[:, :4]), with_lags.biases(rows[:, :4])
    for layer, (before, after) in enumerate(zip(plain, biased, strict=True)):
        for query in range(4):
            for key in range(query + 1):
                gap = after[..., query, key] - before[..., query, key]
                torch.testing.assert_close(
                    gap, with_lags.lag_bias[layer, :, query - key].expand_as(gap), atol=1e-5, rtol=1e-5
                )
    last = (rows > 0).sum(1) - 1
    states = with_lags.states(rows)[0][torch.arange(len(rows)), last]
    torch.testing.assert_close(with_lags.last_states(rows), states, atol=1e-5, rtol=1e-5)


def test_an_epoch_is_judged_by_the_trust_that_suits_it(tmp_path, monkeypatch):
    early, late = {0.5: 0.3}, {0.5: 0.2, 1.0: 0.4}  # scores by trust
    asked = []

    def score(recommender, *_):
        asked.append(round(float(recommender.model.scoring.trust), 3))
        return (early if len(asked) <= EARLY else late).get(asked[-1], 0.1)

    monkeypatch.setattr("bbqrec_core.recommender.fit.early_score", score)
    data = Dataset(n_items=N, sequences=pack(histories(6)))
    config = recommender_config(output="items", score_reweight=True, epochs=2)
    found, log = fit_recommender(data, None, config, EvaluationConfig(), 0, tmp_path)
    assert (log.best_epoch, log.epochs[0]["score"], log.epochs[1]["score"]) == (2, 0.3, 0.4)
    assert float(found.model.scoring.trust) == log.epochs[1]["trust"] == 1.0
