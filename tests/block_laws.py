"""Laws of a stack of transformer blocks, for the core's blocks and those of baselines, in float64.

Every axis has another prime length, so a wrong axis is an error.
"""

import torch
from tiny import normal

from bbqrec_core.transformer import Block, Transformer, causal_mask, select_query

USERS, HEADS, KEYS = 2, 3, 7
LAYERS, WIDTH = 2, 6


def stack(kind: type[Block] = Block, dropout: float = 0.0) -> Transformer:
    """A stack of blocks in eval mode; equal arguments give equal weights."""
    torch.manual_seed(0)
    return Transformer(LAYERS, WIDTH, HEADS, dropout, kind).double().eval()


def biases(length: int) -> list[torch.Tensor]:
    """A random causal bias per layer, for each user and head."""
    return [causal_mask(length)[None, None] + 0.5 * normal(USERS, HEADS, length, length, seed=n) for n in range(LAYERS)]


def attention_looks_at_nothing_later(kind: type[Block]) -> list[torch.Tensor]:
    """Returns the weights of each layer."""
    _, maps = stack(kind)(normal(USERS, KEYS, WIDTH), biases(KEYS))
    assert len(maps) == LAYERS
    for weights in maps:
        assert weights.shape == (USERS, HEADS, KEYS, KEYS)
        assert bool((weights.triu(1) == 0).all())
    return maps


def attention_rows_sum_to_one_and_look_at_nothing_later(kind: type[Block]) -> None:
    for weights in attention_looks_at_nothing_later(kind):
        torch.testing.assert_close(weights.sum(-1), torch.ones(USERS, HEADS, KEYS, dtype=torch.float64))
        assert bool((weights >= 0).all())


def later_position_changes_no_earlier_output(kind: type[Block]) -> None:
    model, x = stack(kind), normal(USERS, KEYS, WIDTH)
    changed = x.clone()
    changed[:, 4:] = normal(USERS, KEYS - 4, WIDTH, seed=9)
    before, after = (model(version, biases(KEYS))[0] for version in (x, changed))
    assert torch.equal(before[:, :4], after[:, :4])
    assert bool((before[:, 4:] != after[:, 4:]).any(-1).all())


def one_position_a_user_is_that_of_one_pass(kind: type[Block]) -> None:
    model, x, row = stack(kind), normal(USERS, KEYS, WIDTH), torch.tensor([1, 4])
    for given in (biases(KEYS), [causal_mask(KEYS).double()[None, None]] * LAYERS):  # for each head, or one for all
        whole, _ = model(x, given)
        there = [*given[:-1], select_query(given[-1], row)]
        torch.testing.assert_close(model.last_position(x, there, row), whole[torch.arange(USERS), row])


def growing_position_by_position_equals_one_pass(
    kind: type[Block], cached: tuple[int, ...] = (2, USERS, HEADS, KEYS, WIDTH // HEADS)
) -> None:
    """`cached` is the shape of what each block keeps: keys and values unless it reads something else."""
    model, x = stack(kind), normal(USERS, KEYS, WIDTH)
    whole, _ = model(x, [causal_mask(KEYS)] * LAYERS)
    caches = [None] * LAYERS
    for position in range(KEYS):
        out, caches = model.extend(x[:, position, None], caches)
        torch.testing.assert_close(out[:, 0], whole[:, position])
    assert all(cache.shape == cached for cache in caches)


def dropout_acts_in_training_only(kind: type[Block]) -> None:
    model, x = stack(kind, dropout=0.5), normal(USERS, KEYS, WIDTH)
    plain = stack(kind)(x, biases(KEYS))[0]
    assert torch.equal(model(x, biases(KEYS))[0], plain)
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model(x, biases(KEYS))[0], plain)
