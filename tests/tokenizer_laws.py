"""Laws of stage 1 that the core's tokenizer and that of baselines both keep; the tests of each call them.

Laws of an untrained model ask for `make(**settings)`, those of a trained one for `run(**settings)`.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from elsewhere import near, train_on
from killing import Killed, dying
from tiny import normal
from torch import Tensor

from bbqrec_core import Dataset, Sequences, Tokenized, TokenizerConfig
from bbqrec_core.tokenizer.fit import TokenizerMaker, encode_items, initialise
from bbqrec_core.tokenizer.model import Tokenizer
from bbqrec_core.tokenizer.quantizer import Quantized
from bbqrec_core.tokenizer.semantic_ids import move_to_free

# ---- an untrained model over random features

N, WIDTH, LEVELS, CODES, NARROW = 13, 8, 2, 5, 3
SIZES = {"levels": LEVELS, "codes": CODES, "code_width": WIDTH, "specific_width": NARROW}
DIMS = {"image": 3, "text": 5}
WINDOWS = torch.tensor([[1, 2, 3, 2, 5], [4, 2, 6, 0, 0], [7, 8, 2, 9, 0]])  # item 2 is a target four times
DRAWN = torch.tensor([1, 4, 10, 11, 12, 13, 6])
SILENT = [10, 11]  # rows without training events


def untrained(
    kind: TokenizerMaker,
    config: TokenizerConfig,
    dims: dict[str, int] = DIMS,
    missing: bool = True,
    training: bool = False,
) -> Tokenizer:
    """A tokenizer in float64 over random features; text lacks rows 3 and 11, images rows 2, 11 and 12."""
    features = {name: normal(N + 1, dim, seed=dim) for name, dim in dims.items()}
    presence = {name: torch.arange(N + 1) > 0 for name in dims}
    if missing:
        absent = {"text": [3, 11], "image": [2, 11, 12]}
        for name in dims:
            presence[name][absent[name]] = features[name][absent[name]] = 0
    counts = torch.arange(N + 1) % 4 + 1
    counts[[0, *SILENT]] = 0
    torch.manual_seed(7)
    return kind(features, presence, counts, config).double().train(training)


def encoded(model: Tokenizer, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Quantized, Tensor]:
    """Signals, units, their presence, the quantizer's answer and one vector an item, by the model's own parts."""
    signals = model.parts(rows).signals
    units, present = model.units(signals, model.present[rows])
    seen = model.quantize(units, present)
    return signals, units, present, seen, model.quantized_items(seen.vectors, present)


def gradients(model: Tokenizer, value: Tensor) -> set[str]:
    """Which parameters get a gradient that is not zero everywhere, by the first word of their name."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return {name.split(".")[0] for name, grad in zip(names, found, strict=True) if grad is not None and grad.any()}


def loss_is_the_sum_of_its_parts(make: Callable[..., Tokenizer], weights: dict[str, str]) -> None:
    """Each weight scales its own term alone, and a term without weight is not there; `weights`: term -> setting."""
    model, off = make(), make(**dict.fromkeys(weights.values(), 0.0))
    double = make(**{name: 2 * getattr(model.config, name) for name in weights.values()})
    found, twice = ({} for _ in range(2))
    for target, source in ((found, model), (twice, double)):
        torch.manual_seed(0)
        target |= source.losses(WINDOWS, DRAWN, learn=False)
    assert set(found) == {"loss", "quantization", "reconstruction", *weights}
    torch.testing.assert_close(found["loss"], sum(value for name, value in found.items() if name != "loss"))
    for name in set(found) - {"loss", "quantization"}:
        assert found[name] != 0
        torch.testing.assert_close(twice[name], found[name] * (2 if name in weights else 1))
    assert set(off.losses(WINDOWS, DRAWN, learn=False)) == {"loss", "quantization", "reconstruction"}


def sequence_term_reads_its_own_windows(model: Tokenizer) -> None:
    """In the whole loss, the sequence term is that of the windows, whatever other items are drawn."""
    *_, items = encoded(model, torch.arange(N + 1))
    wanted = model.config.w_seq * model.sequence(WINDOWS, WINDOWS, torch.arange(N + 1), items)
    torch.testing.assert_close(model.losses(WINDOWS, DRAWN, learn=False)["sequence"], wanted)


def features_of_an_absent_modality_change_nothing(make: Callable[..., Tokenizer], **changes: object) -> None:
    """Bit for bit: losses, gradients and all state after one step."""
    models = [make(training=True, revive_every=1, **changes) for _ in range(2)]
    with torch.no_grad():
        models[1].feature_text[[0, 3, 11]] += 7.0
        models[1].feature_image[[0, 2, 11, 12]] -= 5.0
    results = []
    for model in models:
        torch.manual_seed(2)
        found = model.losses(WINDOWS, torch.arange(1, N + 1))
        found["loss"].backward()
        model.variational_loss(model.parts(torch.arange(1, N + 1))).backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append(found | grads | model.state_dict())
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


# ---- a trained one on planted data

ARRAYS = ("code_ids", "raw_codes", "signal_codes", "signal_vectors", "present", "codebook")


def equal(first: Tokenized, second: Tokenized) -> bool:
    """Whether two finished tokenizers agree bit for bit in all that they hold."""
    arrays = [(getattr(first.ids, name), getattr(second.ids, name)) for name in ARRAYS]
    arrays += [(getattr(first, name), getattr(second, name)) for name in ("behaviour", "specific", "residual")]
    return (
        first.log == second.log
        and first.health == second.health
        and (first.ids.signals, first.ids.sizes) == (second.ids.signals, second.ids.sizes)
        and all(a.shape == b.shape and np.array_equal(a, b) for a, b in arrays)
    )


def tables_have_the_stated_shapes(done: Tokenized, data: Dataset, learned: int) -> None:
    """Every array of a tokenizer with the sizes of `tiny.TOKENIZER`, whose IDs have `learned` codes."""
    ids, rows, levels, codes, width = done.ids, data.n_items + 1, 2, 5, 6
    assert ids.signals == ("image", "text", "id")
    assert (ids.learned, ids.sid_len) == (learned, learned)
    assert ids.sizes == (codes,) * learned
    assert ids.raw_codes.shape == (rows, learned)
    assert ids.signal_codes.shape == (rows, 3, levels)
    assert ids.signal_vectors.shape == done.behaviour.shape == (rows, 3, width)
    assert done.specific.shape == (rows, 2, 3)
    assert done.residual.shape == (rows, width)
    assert ids.codebook.shape == (learned, codes, width)
    assert bool((ids.code_ids >= 0).all())
    assert bool((ids.code_ids[1:].max(0) < ids.sizes).all())
    assert np.array_equal(ids.present[:, 0], data.presence["image"])
    assert np.array_equal(ids.present[:, 2], data.train_counts() > 0)
    assert not ids.present[0].any()


def unlike(data: Dataset, drop: int) -> Dataset:
    """The same data with each user's last `drop` events replaced by others."""
    items = data.sequences.items.copy()
    for back in range(1, drop + 1):
        last = data.sequences.offsets[1:] - back
        items[last] = items[last] % data.n_items + 1
    return replace(data, sequences=Sequences(data.sequences.offsets, items))


def ids_depend_on_nothing_that_training_may_not_see(
    run: Callable[..., Tokenized], data: Dataset, **changes: object
) -> None:
    """Other validation and test events, other published codes, times, titles and original ids: equal IDs."""
    other = unlike(data, 2)
    shuffled = data.items.with_columns(item_id=data.items["item_id"].reverse(), title=data.items["title"].reverse())
    other = replace(other, timestamps=data.timestamps[::-1].copy(), items=shuffled)
    assert not np.array_equal(other.targets("valid"), data.targets("valid"))
    assert equal(run(dataset=other, **changes), run(**changes))
    assert not equal(run(dataset=unlike(data, 3), **changes), run(**changes))


def residual_is_what_the_last_level_saw(model: Tokenizer, data: Dataset) -> None:
    """The code nearest to what the repair is given is the one that was chosen."""
    initialise(model, data.warm_rows(), 0)
    found = encode_items(model)
    gaps = ((found.residual[1:, None] - found.ids.codebook[-1]) ** 2).sum(-1)
    chosen = np.take_along_axis(gaps, found.ids.code_ids[1:, -1:], axis=1)[:, 0]
    assert chosen == pytest.approx(gaps.min(1), abs=1e-5)


def residual_is_the_one_that_the_repair_chose_by(run: Callable[..., Tokenized], **changes: object) -> None:
    """The repair of the residual that is handed out gives the IDs that are."""
    done, fewer = (run(uniqueness=kind, codes=4, **changes) for kind in ("nearest", "none"))
    ids = done.ids
    assert np.array_equal(move_to_free(ids.raw_codes, done.residual, ids.codebook[-1]), ids.code_ids)
    assert np.array_equal(fewer.residual, done.residual)


def only_the_id_signal_is_left(done: Tokenized) -> None:
    """What a tokenizer of data without modalities is."""
    assert done.ids.signals == ("id",)
    assert done.specific.shape == (25, 0, 0)
    assert done.health["after"]["collision_rate"] < done.health["before"]["collision_rate"]


def progress_is_recorded_every_epoch(done: Tokenized, terms: Iterable[str]) -> None:
    """The log has the means of these terms, the loss, and figures of the codes before the repair."""
    log, shared = done.log, {"loss", "quantization", "reconstruction", "mutual_information", "cross_modal", "sequence"}
    assert [row["epoch"] for row in log] == [1, 2]
    assert set(log[0]) == {"epoch", "used", "perplexity", "collision_rate", *shared, *terms}
    for name in ("used", "perplexity", "collision_rate"):  # measured on the items, before the repair
        assert log[-1][name] == done.health["before"][name]


def items_held_out_get_ids_and_leave_no_trace_in_the_codebook(
    fit: Callable[[Dataset, Path], Tokenized], data: Dataset, folder: Path
) -> None:
    """`fit` trains without a repair and without the ID signal, which would tell items apart by other means."""
    cold = np.arange(data.n_items + 1) % 6 == 0
    held = replace(data, cold=cold)
    rows = np.flatnonzero(cold)[1:]
    changed = replace(held, features={name: array.copy() for name, array in data.features.items()})
    for array in changed.features.values():
        array[rows] = array[rows][:, ::-1]
    first, second = (fit(one, folder / name) for name, one in (("held", held), ("changed", changed)))
    assert np.array_equal(first.ids.codebook, second.ids.codebook)
    warm = data.n_items + 1 - len(rows) - 1
    others = np.setdiff1d(np.arange(1, data.n_items + 1), rows)
    assert len(others) == warm
    assert np.array_equal(first.ids.code_ids[others], second.ids.code_ids[others])
    assert not np.array_equal(first.ids.code_ids[rows], second.ids.code_ids[rows])


def killed_training_ends_as_if_uninterrupted(
    fit: Callable[[str], Tokenized], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Bit for bit; `fit` trains in a folder of that name, and dies at step `after`."""
    whole = fit("whole")
    with monkeypatch.context() as patch:
        dying(patch, Tokenizer, "losses", after)
        with pytest.raises(Killed):
            fit("cut")
    assert equal(fit("cut"), whole)


def trained_elsewhere_is_that_of_the_cpu_within_rounding(
    fit: Callable[[str], Tokenized], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fit` trains in a folder of that name on the best device, which is `device` at first."""
    there = fit("there")
    train_on(torch.device("cpu"), monkeypatch)
    here = fit("here")
    share = 0.8 if device.type == "cuda" else 0.99  # a GPU rounds the factors of its products in training
    assert near(there.ids.raw_codes, here.ids.raw_codes, share)
    assert near(there.ids.signal_codes, here.ids.signal_codes, share)
    assert there.log[0]["loss"] == pytest.approx(here.log[0]["loss"], rel=0.05)
    assert all(isinstance(array, np.ndarray) for array in (there.behaviour, there.specific, there.residual))
