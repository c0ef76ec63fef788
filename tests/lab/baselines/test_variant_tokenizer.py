"""Laws of the tokenizer with the switches of baselines: own and chained codebooks, joined features, LETTER's terms.

By default it is the core's tokenizer, bit for bit; what the core's keeps with any switch is held by the same laws.
"""

import itertools
import math
from dataclasses import asdict, fields
from functools import cache

import identities
import numpy as np
import peers
import pytest
import tokenizer_laws as laws
import torch
import torch.nn.functional as F
from identities import close
from tiny import ids_config, lab_tokenizer_config, normal, planted_data, recommender_config, tokenizer_config
from tokenizer_laws import CODES, DIMS, DRAWN, LEVELS, SIZES, WIDTH, WINDOWS, N, encoded, equal, gradients
from torch import nn

from bbqrec_core import ResidualQuantizer, TokenizerConfig, build_recommender, fit_tokenizer
from bbqrec_core.tokenizer.fit import build_model, encode_items
from bbqrec_lab.baselines.tokenizers import make_tokenized
from bbqrec_lab.baselines.variant_tokenizer import UnitQuantizer, VariantTokenizer, tokenizer_maker
from bbqrec_lab.settings import VariantTokenizerConfig

COMBINE = ("fused", "concat", "chain")
EMBEDDINGS = np.random.default_rng(5).normal(size=(25, 4)).astype(np.float32)  # another model's, of 24 items
combined = pytest.mark.parametrize("combine", COMBINE)
shared_or_not = pytest.mark.parametrize("shared", [True, False])


def make(dims=DIMS, missing=True, training=False, collaborative=None, **changes):
    """A row's tokenizer as `tokenizer_laws.untrained` has it."""
    config = lab_tokenizer_config(**(SIZES | changes))
    return laws.untrained(tokenizer_maker(collaborative), config, dims, missing, training)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("row-tokenizer"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """run(seed, dataset, **settings) -> Tokenized, each distinct one trained once."""

    @cache
    def fit(seed=0, dataset=data, **changes):
        folder = tmp_path_factory.mktemp("t") / "c"
        return make_tokenized(dataset, ids_config(), lab_tokenizer_config(**changes), seed, folder, EMBEDDINGS)

    return fit


# ---- the whole: an RQ-VAE when everything else is off


class PlainRQVAE(nn.Module):
    """TIGER's tokenizer: encode, quantize residuals, decode; codebook and commitment loss, straight-through."""

    def __init__(self, dim):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(dim, 7), nn.ReLU(), nn.Linear(7, WIDTH))
        self.decoder = nn.Sequential(nn.Linear(WIDTH, 7), nn.ReLU(), nn.Linear(7, dim))
        self.codebook = nn.Parameter(torch.zeros(LEVELS, CODES, WIDTH))

    def forward(self, x, commitment):
        z = self.encoder(x)
        residual, quantized, loss, codes = z, 0, 0, []
        for table in self.codebook:
            nearest = ((residual[:, None] - table) ** 2).sum(-1).argmin(1)
            chosen = table[nearest]
            loss = loss + ((residual.detach() - chosen) ** 2).mean()
            loss = loss + commitment * ((residual - chosen.detach()) ** 2).mean()
            residual, quantized = residual - chosen.detach(), quantized + chosen.detach()
            codes.append(nearest)
        rebuilt = self.decoder(z + (quantized - z).detach())
        return loss + ((rebuilt - x) ** 2).mean(), torch.stack(codes, 1)


def test_with_everything_else_off_it_is_a_plain_rqvae():
    off = {"id_signal": False, "specific": False, "normalise": False, "codebook_update": "gradient", "w_use": 0.0}
    off |= {"w_mi": 0.0, "w_cross": 0.0, "w_seq": 0.0}
    model = make({"text": 5}, missing=False, training=True, commitment=0.3, **off)
    plain = PlainRQVAE(5).double()
    pairs = {"encoder": model.behaviour["text"], "decoder": model.decoders["text"]}
    for name, part in pairs.items():
        getattr(plain, name).load_state_dict(part.state_dict())
    with torch.no_grad():
        plain.codebook.copy_(model.quantizer.books[0].codebook)
    wanted, codes = plain(model.feature_text[DRAWN], 0.3)
    found = model.losses(WINDOWS, DRAWN)
    assert set(found) == {"loss", "quantization", "reconstruction"}
    torch.testing.assert_close(found["loss"], wanted)
    assert torch.equal(model.quantize(model.parts(DRAWN).signals, model.present[DRAWN]).codes[:, 0], codes)
    wanted.backward()
    found["loss"].backward()
    torch.testing.assert_close(model.quantizer.books[0].codebook.grad, plain.codebook.grad)
    for name, part in pairs.items():
        for mine, peer in zip(part.parameters(), getattr(plain, name).parameters(), strict=True):
            torch.testing.assert_close(mine.grad, peer.grad)
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"behaviour", "decoders", "quantizer"}


@pytest.mark.parametrize("changes", [{}, {"w_seq": 0.0}])
def test_with_the_default_switches_it_is_the_tokenizer_of_the_core_bit_for_bit(data, tmp_path, changes):
    row, core = lab_tokenizer_config(w_use=0.0, **changes), tokenizer_config(**changes)
    switches = {spec.name for spec in fields(VariantTokenizerConfig)} - {spec.name for spec in fields(TokenizerConfig)}
    assert all(getattr(row, name) == getattr(VariantTokenizerConfig(), name) for name in switches)
    found = fit_tokenizer(data, row, 0, tmp_path / "row", VariantTokenizer)
    assert equal(found, fit_tokenizer(data, core, 0, tmp_path / "core"))  # IDs, losses and all the rest


def test_alignment_without_the_other_models_embeddings_is_refused(data, tmp_path):
    config = lab_tokenizer_config(w_align=0.5)
    for kind in (VariantTokenizer, tokenizer_maker(None)):
        with pytest.raises(ValueError, match=r"w_align needs .*item embeddings of another model"):
            fit_tokenizer(data, config, 0, tmp_path / "c", kind)
    assert list(tmp_path.iterdir()) == []  # before any work
    build_model(data, lab_tokenizer_config(), tokenizer_maker(None))  # without the term it needs none


CHANGES = {
    "joined": True,
    "shared_codebook": False,
    "combine": "concat",
    "gradient": "rotation",
    "codebook_update": "gradient",
    "w_use": 0.5,
    "w_align": 0.5,
}


def test_every_setting_has_a_test_that_changes_it():
    shared = [spec.name for spec in fields(TokenizerConfig)]  # test_fit_tokenizer.py changes these
    assert [*shared, *CHANGES] == [spec.name for spec in fields(VariantTokenizerConfig)]
    base = asdict(lab_tokenizer_config())
    assert all(base[name] != value for name, value in CHANGES.items())


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_a_result(run, name):
    assert not equal(run(**{name: CHANGES[name]}), run())


def test_the_loss_is_the_sum_of_its_parts_and_each_weight_scales_its_own():
    weights = {"mutual_information": "w_mi", "cross_modal": "w_cross", "sequence": "w_seq", "usage": "w_use"}
    laws.loss_is_the_sum_of_its_parts(make, weights)
    align = {"w_align": 0.3, "collaborative": normal(N + 1, 5, seed=8).numpy()}
    laws.loss_is_the_sum_of_its_parts(lambda **changes: make(**(align | changes)), weights | {"alignment": "w_align"})
    assert set(make({}).losses(WINDOWS, DRAWN, learn=False)) == {"loss", "quantization", "sequence", "usage"}


def test_progress_is_recorded_every_epoch(run):
    laws.progress_is_recorded_every_epoch(run(), {"usage"})
    laws.progress_is_recorded_every_epoch(run(w_align=0.5), {"usage", "alignment"})


@pytest.mark.parametrize("after", [2, 8])
def test_a_killed_tokenizer_ends_as_if_uninterrupted(data, tmp_path, monkeypatch, after):
    changes = {"codebook_update": "gradient", "gradient": "rotation", "combine": "concat"}
    config = lab_tokenizer_config(epochs=3, **changes)
    laws.killed_training_ends_as_if_uninterrupted(
        lambda name: fit_tokenizer(data, config, 1, tmp_path / name, VariantTokenizer), monkeypatch, after
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"combine": "chain"},
        {"combine": "concat", "shared_codebook": False},
        {"w_align": 0.5, "joined": True},
        {"codebook_update": "gradient"},
        {"gradient": "rotation"},
    ],
)
def test_a_tokenizer_trained_elsewhere_is_that_of_the_cpu_within_rounding(data, device, tmp_path, monkeypatch, changes):
    config = lab_tokenizer_config(epochs=1, **changes)
    laws.trained_elsewhere_is_that_of_the_cpu_within_rounding(
        lambda name: make_tokenized(data, ids_config(), config, 0, tmp_path / name, EMBEDDINGS), device, monkeypatch
    )


# ---- units, and the IDs that they make


def test_concatenated_ids_quantize_each_signal_as_it_is():
    model = make(combine="concat")
    signals, units, present, seen, items = encoded(model, DRAWN)
    assert torch.equal(units, signals)
    for row in range(len(DRAWN)):
        here = [seen.vectors[row, s] for s in range(3) if present[row, s]]
        torch.testing.assert_close(items[row], sum(here, torch.zeros(WIDTH).double()) / max(len(here), 1))


@combined
def test_in_the_whole_loss_the_sequence_term_reads_its_own_windows(combine):
    laws.sequence_term_reads_its_own_windows(make(w_seq=0.7, combine=combine))


@pytest.mark.parametrize("changes", [{}, {"combine": "concat"}, {"codebook_update": "gradient", "normalise": False}])
def test_features_of_an_absent_modality_change_nothing(changes):
    laws.features_of_an_absent_modality_change_nothing(make, **changes)


@pytest.mark.parametrize(("combine", "learned"), [("fused", 2), ("concat", 3 * 2), ("chain", 3 * 2)])
def test_tables_have_the_stated_shapes(data, run, combine, learned):
    laws.tables_have_the_stated_shapes(run(combine=combine), data, learned)


def test_concatenated_ids_hold_the_signals_codes_in_order_and_the_mean_for_absent_ones(data, run):
    done = run(combine="concat")
    codes = done.ids.raw_codes.reshape(-1, 3, 2)
    present = done.ids.present
    assert np.array_equal(codes[present], done.ids.signal_codes[present])
    for row in (np.flatnonzero(~present[1:].all(1)) + 1).tolist():
        mean = done.behaviour[row][present[row]].mean(0)
        for signal in np.flatnonzero(~present[row]):
            gaps = ((mean - done.ids.codebook[0]) ** 2).sum(-1)
            assert gaps[codes[row, signal, 0]] <= gaps.min() + 1e-5


@pytest.mark.parametrize("combine", ["fused", "concat"])
def test_no_id_depends_on_what_training_may_not_see(data, run, combine):
    laws.ids_depend_on_nothing_that_training_may_not_see(run, data, combine=combine)


def test_the_residual_given_to_the_repair_is_what_the_last_level_saw(data):
    for combine, shared in itertools.product(COMBINE, (True, False)):
        torch.manual_seed(0)
        config = lab_tokenizer_config(combine=combine, shared_codebook=shared)
        laws.residual_is_what_the_last_level_saw(build_model(data, config, VariantTokenizer), data)


@combined
def test_the_residual_that_is_handed_out_is_the_one_that_the_repair_chose_by(run, combine):
    laws.residual_is_the_one_that_the_repair_chose_by(run, combine=combine)


@shared_or_not
@combined
def test_the_codes_of_an_id_say_its_vectors_by_the_tables_of_their_positions(run, combine, shared):
    ids = run(combine=combine, shared_codebook=shared).ids
    assert len(ids.codebook) == ids.learned
    if combine == "fused":
        return
    vectors = ids.codebook[np.arange(ids.learned), ids.raw_codes]
    vectors = vectors.reshape(len(ids.raw_codes), 3, 2, -1).sum(2)
    vectors = vectors.cumsum(1) if combine == "chain" else vectors
    assert vectors[ids.present] == pytest.approx(ids.signal_vectors[ids.present], abs=1e-5)


def test_joined_features_are_one_signal_that_an_item_has_if_it_has_any(data, run):
    ids = run(joined=True).ids
    assert ids.signals == ("image+text", "id")
    assert np.array_equal(ids.present[:, 0], data.presence["image"] | data.presence["text"])


@pytest.mark.parametrize("signals", [("text",), ("text", "sound")])
def test_one_modality_has_nothing_to_be_joined_with(run, signals):
    assert equal(run(joined=True, signals=signals), run(signals=("text",)))


def test_signals_are_joined_in_the_order_in_which_they_are_named(data, run):
    found = run(joined=True, signals=("text", "image"), combine="concat").ids
    assert found.signals == ("text+image", "id")
    assert found.learned == 2 * 2  # codes of the joined signal, then those of the ID signal


def test_concatenated_ids_start_every_signal_from_the_same_codebook(run):
    tables = build_recommender(24, run(combine="concat").ids, recommender_config(), 0).model.vectors.codes
    assert len(tables) == 6
    for position in range(6):
        assert torch.equal(tables[position].weight, tables[position % 2].weight)
    assert not torch.equal(tables[0].weight, tables[1].weight)


# ---- codebooks


def test_a_codebook_of_its_own_for_each_unit_is_used_by_that_unit_alone():
    model = make(shared_codebook=False, combine="concat", w_use=0.3, revive_every=0)
    assert len(model.quantizer.books) == len(model.signals) == 3
    _, units, present, seen, _ = encoded(model, DRAWN)
    for index, book in enumerate(model.quantizer.books):
        alone = book(units[:, index])
        assert torch.equal(seen.codes[:, index], alone.codes)
        torch.testing.assert_close(seen.vectors[:, index], alone.vectors)
        torch.testing.assert_close(seen.residuals[:, :, index], alone.residuals)
        torch.testing.assert_close(seen.loss[:, index], alone.loss)
    before = [book.codebook.clone() for book in model.quantizer.books]
    nobody_has_text = present.clone()
    nobody_has_text[:, 1] = False
    model.quantizer.observe(seen, nobody_has_text)
    moved = [not torch.allclose(book.codebook, old) for book, old in zip(model.quantizer.books, before, strict=True)]
    assert moved == [True, False, True]


def test_fused_units_have_a_codebook_of_their_own_too():
    assert len(make(shared_codebook=False).quantizer.books) == 4
    assert len(make(shared_codebook=True).quantizer.books) == 1


@shared_or_not
def test_codebooks_are_initialised_on_the_present_units_that_they_quantize(shared):
    model = make(shared_codebook=shared, combine="concat")
    _, units, present, _, _ = encoded(model, DRAWN)
    model.quantizer.initialise(units, torch.Generator().manual_seed(0), present)
    generator = torch.Generator().manual_seed(0)
    for index, book in enumerate(model.quantizer.books):
        mine = units[present] if shared else units[present[:, index], index]
        wanted = ResidualQuantizer(LEVELS, CODES, WIDTH).double()
        wanted.initialise(mine, generator)
        assert torch.equal(book.codebook, wanted.codebook)


@shared_or_not
def test_a_chain_quantizes_what_the_signals_before_left_over(shared):
    model = make(combine="chain", shared_codebook=shared)
    signals, units, present, seen, items = encoded(model, DRAWN)
    assert torch.equal(units, signals)
    for row in range(len(DRAWN)):
        said = torch.zeros(WIDTH, dtype=torch.float64)
        for index in range(len(model.signals)):
            book = model.quantizer.books[0 if shared else index]
            alone = book((signals[row, index] - said)[None])
            assert torch.equal(seen.codes[row, index], alone.codes[0])
            torch.testing.assert_close(seen.vectors[row, index], said + alone.vectors[0])
            if present[row, index]:
                said = said + book.decode(alone.codes[0])
        if present[row].any():
            torch.testing.assert_close(items[row], said)
    whole = torch.ones_like(present)
    complete = model.quantizer(units, whole)
    torch.testing.assert_close(model.quantizer.decode(complete.codes), complete.vectors)


def quantizer_of(units, shared, chain, *sizes):
    """A `UnitQuantizer` over random codebooks of these sizes (L, K, E)."""
    return UnitQuantizer([ResidualQuantizer(*sizes) for _ in range(1 if shared else units)], chain)


def test_a_chain_over_copies_of_one_signal_is_one_quantizer_with_all_the_levels():
    units, levels, signal = 3, 2, normal(40, 6)
    torch.manual_seed(1)
    chain, deep = quantizer_of(units, False, True, levels, 5, 6).double(), ResidualQuantizer(6, 5, 6).double()
    with torch.no_grad():
        deep.codebook.copy_(torch.cat([book.codebook for book in chain.books]))
    present = torch.ones(40, units, dtype=torch.bool)
    found, wanted = chain(signal[:, None].expand(-1, units, -1), present), deep(signal)
    assert torch.equal(found.codes.flatten(1), wanted.codes)
    close(found.vectors[:, -1], wanted.vectors)
    close(found.loss.sum(1), wanted.loss)


@shared_or_not
@pytest.mark.parametrize("chain", [True, False])
def test_units_are_the_peer_once_for_each_on_what_the_chain_left_over(shared, chain):
    """The peer is `vector-quantize-pytorch`, as in test_peers.py."""
    torch.manual_seed(2)
    count = 3
    quantizer = quantizer_of(count, shared, chain, peers.LEVELS, peers.CODES, peers.WIDTH)
    units = peers.normal(peers.ITEMS, count, peers.WIDTH, seed=3)
    present = peers.normal(peers.ITEMS, count, seed=4) > -0.7
    with torch.no_grad():
        seen, said = quantizer(units, present), torch.zeros(peers.ITEMS, peers.WIDTH)
        kept = torch.ones(peers.ITEMS, dtype=torch.bool)
        for unit in range(count):
            book = quantizer.books[0 if shared else unit]
            kept &= peers.clear(book, units[:, unit] - said)
            vectors, codes, _ = peers.peer_of(book).eval()((units[:, unit] - said)[None])
            wanted = said + vectors[0]
            assert torch.equal(seen.codes[kept, unit], codes[0][kept])
            torch.testing.assert_close(seen.vectors[kept, unit], wanted[kept], atol=1e-5, rtol=1e-5)
            if chain:
                said = torch.where(present[:, unit, None], wanted, said)
    assert kept.float().mean() > 0.97


# ---- LETTER's terms


def test_usage_is_log_k_minus_the_entropy_of_the_mean_assignment():
    model = make(temperature=0.5)
    _, _, present, seen, _ = encoded(model, DRAWN)
    gaps = []
    for table, residual in zip(model.quantizer.books[0].codebook, seen.residuals, strict=True):
        shares = []
        for vector in residual[present]:
            distance = ((vector - table) ** 2).sum(-1) / WIDTH
            shares.append((-distance / 0.5).softmax(0))
        mean = sum(shares) / len(shares)
        gaps.append(math.log(CODES) + (mean * mean.log()).sum())
    torch.testing.assert_close(model.usage(seen, present), sum(gaps) / LEVELS)


def test_collaborative_alignment_is_info_nce_with_the_other_models_embeddings_of_trained_items():
    collaborative = normal(N + 1, 5, seed=8)
    model = make(w_align=0.5, collaborative=collaborative.numpy())
    rows = torch.tensor([1, 2, 3, 4, 5, 6])
    *_, items = encoded(model, rows)
    trained = [place for place, row in enumerate(rows) if model.counts[row] > 0]
    theirs = model.align(collaborative[rows])
    logits = F.cosine_similarity(items[trained][:, None], theirs[trained][None], dim=-1) / model.config.temperature
    own = torch.arange(len(trained))
    wanted = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(model.alignment(rows, items), wanted)
    torch.testing.assert_close(model.losses(WINDOWS, rows, learn=False)["alignment"], 0.5 * wanted)


def test_each_term_moves_the_parameters_it_should():
    model = make(codebook_update="gradient", w_align=0.5, collaborative=normal(N + 1, 5, seed=8).numpy())
    found, signals = model.losses(WINDOWS, DRAWN, learn=False), {"behaviour", "id_signal", "gates"}
    assert gradients(model, found["usage"]) == signals | {"quantizer"}
    assert gradients(model, found["alignment"]) == signals | {"align"}


# ---- identities, as of the core's tokenizer in test_identities.py


def stage_one(data, **changes):
    """A tokenizer of `identities.stage_one` whose codebooks move no dead code."""
    return identities.stage_one(data, VariantTokenizer, lab_tokenizer_config(revive_every=0, **changes))


@shared_or_not
@combined
def test_relabelling_codes_relabels_ids_and_changes_no_vector_and_no_loss(data, combine, shared):
    plain, other = (stage_one(data, combine=combine, shared_codebook=shared, w_use=0.3) for _ in range(2))
    identities.relabelling_codes_relabels_ids_and_changes_no_vector_and_no_loss(plain, other)


@pytest.mark.parametrize("uniqueness", ["none", "nearest"])  # `extra` numbers equal items
@combined
def test_renumbering_items_renumbers_their_ids_and_changes_no_loss(data, combine, uniqueness):
    identities.renumbering_items_renumbers_their_ids_and_changes_no_loss(
        lambda one: stage_one(one, combine=combine, uniqueness=uniqueness), data
    )


@pytest.mark.parametrize("combine", ["fused", "concat"])
def test_the_order_of_modalities_orders_the_codes_and_changes_no_loss(data, combine):
    identities.order_of_modalities_orders_the_codes_and_changes_no_loss(
        lambda **changes: stage_one(data, combine=combine, **changes), one_after_another=combine == "concat"
    )


def test_with_one_signal_all_ways_to_combine_and_to_share_are_the_same(data):
    there = torch.from_numpy(data.presence["text"]).nonzero().squeeze(-1)

    def made(combine, shared):
        model = stage_one(data, signals=("text",), id_signal=False, combine=combine, shared_codebook=shared)
        return identities.losses(model, there[:12].view(3, 4), there), encode_items(model)

    plain, coded = made("fused", True)
    for combine, shared in itertools.product(COMBINE, (True, False)):
        found, others = made(combine, shared)
        for name, value in plain.items():
            close(found[name], value)
        assert np.array_equal(others.ids.code_ids[there], coded.ids.code_ids[there])
