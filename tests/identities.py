"""Identities of stage 1 that the core's tokenizer and that of baselines both keep, on planted data of 24 items.

Models are float64 and compared to 1e-9, unless an identity says bit for bit.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from tiny import normal
from torch import Tensor

from bbqrec_core import Dataset, ResidualQuantizer, Sequences, TokenizerConfig
from bbqrec_core.tokenizer.fit import TokenizerMaker, build_model, encode_items, finish
from bbqrec_core.tokenizer.model import Tokenizer

N = 24
WINDOWS = torch.tensor([[1, 2, 3, 2], [4, 2, 6, 5], [7, 8, 2, 9]])
DRAWN = torch.arange(1, N + 1)
close = partial(torch.testing.assert_close, atol=1e-9, rtol=1e-9)


def stage_one(data: Dataset, kind: TokenizerMaker, config: TokenizerConfig) -> Tokenizer:
    """A tokenizer in float64 with its codebook on the data, in training mode; equal settings give equal parameters."""
    torch.manual_seed(5)
    model = build_model(data, config, kind).double()
    parts = model.eval().parts(DRAWN)
    units, present = model.units(parts.signals, parts.present)
    model.quantizer.initialise(units, torch.Generator().manual_seed(0), present)
    return model.train()


def books(model: Tokenizer) -> list[ResidualQuantizer]:
    """The codebooks of a tokenizer, whether it has one or several."""
    return [part for part in model.modules() if isinstance(part, ResidualQuantizer)]


def losses(model: Tokenizer, windows: Tensor = WINDOWS, drawn: Tensor = DRAWN) -> dict[str, Tensor]:
    """All parts of the loss, with every random draw the same for all models."""
    torch.manual_seed(6)
    return model.losses(windows, drawn, learn=False)


def same_losses(
    model: Tokenizer, other: Tokenizer, windows: Tensor = WINDOWS, drawn: Tensor = DRAWN
) -> dict[str, Tensor]:
    """Hold the losses of a second model for these windows and items against the first one's for WINDOWS and DRAWN."""
    first, second = losses(model), losses(other, windows, drawn)
    assert first.keys() == second.keys()
    for name, value in first.items():
        close(second[name], value)
    return first


def relabelling_codes_relabels_ids_and_changes_no_vector_and_no_loss(plain: Tokenizer, other: Tokenizer) -> None:
    """Vectors are compared bit for bit; the models have equal parameters, five codes and two levels."""
    new_name = torch.stack([torch.randperm(5, generator=torch.Generator().manual_seed(level)) for level in range(2)])
    with torch.no_grad():
        for book in books(other):
            for table, names in zip(book.codebook, new_name, strict=True):
                table[names] = table.clone()
    same_losses(plain, other)
    before, after = encode_items(plain), encode_items(other)
    assert np.array_equal(after.ids.signal_vectors, before.ids.signal_vectors)
    assert np.array_equal(after.residual, before.residual)
    assert np.array_equal(after.behaviour, before.behaviour)
    level = np.arange(before.ids.code_ids.shape[1]) % 2
    assert np.array_equal(after.ids.code_ids, new_name.numpy()[level, before.ids.code_ids])
    assert not np.array_equal(after.ids.code_ids, before.ids.code_ids)


def new_order(seed: int = 4) -> np.ndarray:
    """A permutation of the item rows: new row r holds what old row `order[r]` held."""
    return np.append(0, 1 + np.random.default_rng(seed).permutation(N))


def renumbered(build: Callable[[Dataset], Tokenizer], data: Dataset) -> tuple[Tokenizer, Tokenizer, np.ndarray]:
    """A model, the same model of the data with their items renumbered, and the order of these."""
    order = new_order()
    moved = replace(
        data,
        features={name: array[order] for name, array in data.features.items()},
        presence={name: array[order] for name, array in data.presence.items()},
        sequences=Sequences(data.sequences.offsets, np.argsort(order)[data.sequences.items].astype(np.int32)),
    )
    plain, other = build(data), build(moved)
    state = plain.state_dict()
    other.load_state_dict(state | {"id_signal.weight": state["id_signal.weight"][order]})
    return plain, other, order


def renumbering_items_renumbers_their_ids_and_changes_no_loss(
    build: Callable[[Dataset], Tokenizer], data: Dataset
) -> None:
    """Codes are compared bit for bit."""
    plain, other, order = renumbered(build, data)
    same_losses(plain, other, *(torch.from_numpy(np.argsort(order))[rows] for rows in (WINDOWS, DRAWN)))
    found, wanted = (finish(encode_items(model), model.config, []) for model in (other, plain))
    assert np.array_equal(found.ids.code_ids[1:], wanted.ids.code_ids[order][1:])
    np.testing.assert_allclose(found.ids.signal_vectors, wanted.ids.signal_vectors[order], atol=1e-9)
    assert found.health == wanted.health


def order_of_modalities_orders_the_codes_and_changes_no_loss(
    build: Callable[..., Tokenizer], *, one_after_another: bool
) -> None:
    """CLUB is off here: its random pairs are drawn modality by modality.

    Args: one_after_another: whether the ID holds the codes of one signal after those of another.
    """
    names, swap = ("text", "image"), [1, 0, 2]
    plain, other = (build(signals=order, w_mi=0.0) for order in (names, names[::-1]))
    state, rows = plain.state_dict(), ("gates", "standardise.mean", "standardise.variance")
    with torch.no_grad():
        state["gates"].copy_(normal(3, seed=7))
    other.load_state_dict({name: value[swap] if name in rows else value for name, value in state.items()})
    same_losses(plain, other)
    found, wanted = encode_items(other).ids.code_ids, encode_items(plain).ids.code_ids
    if one_after_another:
        wanted = wanted.reshape(N + 1, 3, 2)[:, swap].reshape(N + 1, 6)
    assert np.array_equal(found[1:], wanted[1:])
