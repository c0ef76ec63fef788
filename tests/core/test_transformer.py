"""Laws of attention and the transformer blocks, in float64 with a different prime for every axis."""

import block_laws as laws
import pytest
import torch
import torch.nn.functional as F
from block_laws import HEADS, KEYS, LAYERS, USERS, WIDTH, biases, stack
from tiny import normal

from bbqrec_core import kernels, transformer
from bbqrec_core.kernels import dropout, softmax_loss
from bbqrec_core.transformer import Block, Transformer, attention, causal_mask

QUERIES, DEPTH = 5, 11


def test_attention_is_the_loop_over_queries_and_keys():
    query, key = normal(USERS, HEADS, QUERIES, DEPTH), normal(USERS, HEADS, KEYS, DEPTH, seed=1)
    value, bias = normal(USERS, HEADS, KEYS, DEPTH, seed=2), normal(USERS, 1, QUERIES, KEYS, seed=3)
    attended, weights = attention(query, key, value, bias)
    for b in range(USERS):
        for h in range(HEADS):
            for i in range(QUERIES):
                raw = [(query[b, h, i] @ key[b, h, j] / DEPTH**0.5 + bias[b, 0, i, j]).exp() for j in range(KEYS)]
                share = torch.stack(raw) / sum(raw)
                torch.testing.assert_close(weights[b, h, i], share)
                torch.testing.assert_close(attended[b, h, i], sum(share[j] * value[b, h, j] for j in range(KEYS)))


def test_torch_fused_attention_agrees():
    query, key = normal(USERS, HEADS, KEYS, DEPTH), normal(USERS, HEADS, KEYS, DEPTH, seed=1)
    value = normal(USERS, HEADS, KEYS, DEPTH, seed=2)
    bias = normal(USERS, HEADS, KEYS, KEYS, seed=3) + causal_mask(KEYS)
    attended, _ = attention(query, key, value, bias)
    torch.testing.assert_close(attended, F.scaled_dot_product_attention(query, key, value, attn_mask=bias))


def test_attention_rows_sum_to_one_and_look_at_nothing_later():
    laws.attention_rows_sum_to_one_and_look_at_nothing_later(Block)


def test_a_later_position_changes_no_earlier_output():
    laws.later_position_changes_no_earlier_output(Block)


def test_one_position_a_user_is_that_of_one_pass():
    laws.one_position_a_user_is_that_of_one_pass(Block)


def test_growing_position_by_position_equals_one_pass():
    laws.growing_position_by_position_equals_one_pass(Block)


def test_a_block_is_two_residual_branches():
    torch.manual_seed(0)
    block, x = Block(WIDTH, HEADS, 0.0).double(), normal(USERS, KEYS, WIDTH)
    y, _ = block(x, causal_mask(KEYS))
    query, key, value = block.project(x)
    assert query.shape == (USERS, HEADS, KEYS, WIDTH // HEADS)
    torch.testing.assert_close(
        torch.cat([part.transpose(1, 2).flatten(-2) for part in (query, key, value)], -1),
        block.qkv(block.norm_attention(x)),
    )
    heads = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    middle = x + block.out(torch.cat(heads.unbind(1), -1))  # heads side by side
    torch.testing.assert_close(y, middle + block.down(F.relu(block.up(block.norm_forward(middle)))))


def test_a_stack_is_made_of_the_kind_of_block_that_is_asked_for():
    class Doubled(Block):
        def merge(self, x, attended):
            return 2 * super().merge(x, attended)

    torch.manual_seed(0)
    model, plain, x = Transformer(LAYERS, WIDTH, HEADS, 0.0, Doubled).double(), stack(), normal(USERS, KEYS, WIDTH)
    assert [type(block) for block in model.blocks] == [Doubled] * LAYERS
    for block in plain.blocks:
        x = 2 * block(x, causal_mask(KEYS))[0]
    torch.testing.assert_close(model(normal(USERS, KEYS, WIDTH), [causal_mask(KEYS)] * LAYERS)[0], plain.norm(x))


def test_each_layer_reads_its_own_bias():
    model, x = stack(), normal(USERS, KEYS, WIDTH)
    first, second = biases(KEYS)
    assert not torch.equal(model(x, [first, second])[0], model(x, [second, first])[0])
    with pytest.raises(ValueError, match="zip"):
        model(x, [first])


def test_dropout_acts_in_training_only():
    laws.dropout_acts_in_training_only(Block)


def test_few_keys_are_attended_as_many_are(monkeypatch):
    query, key = normal(USERS, HEADS, QUERIES, DEPTH), normal(USERS, HEADS, KEYS, DEPTH, seed=1)
    value, bias = normal(USERS, HEADS, KEYS, DEPTH, seed=2), normal(USERS, 1, QUERIES, KEYS, seed=3)
    assert KEYS <= transformer.FEW
    few = attention(query, key, value, bias)
    monkeypatch.setattr(transformer, "FEW", 0)
    for part, whole in zip(few, attention(query, key, value, bias), strict=True):
        torch.testing.assert_close(part, whole)


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(1001, 999)  # not a multiple of eight bytes
    for share in (0.1, 0.5):
        y = dropout(x, share, training=True)
        cut = round(share * 256) / 256
        assert float((y == 0).float().mean()) == pytest.approx(cut, abs=0.002)
        assert float(y[y > 0].unique()) == pytest.approx(1 / (1 - cut))
        assert not torch.equal(y, dropout(x, share, training=True))
        columns = (y == 0).float().flatten()[: 1001 * 999 // 8 * 8].view(-1, 8).mean(0)  # every byte of a word
        assert float((columns - cut).abs().max()) < 0.005
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


@pytest.mark.parametrize("given", [False, True])
def test_softmax_loss_and_its_gradients_are_those_of_cross_entropy(monkeypatch, given):
    monkeypatch.setattr(kernels, "LOSS_ROWS", 4)  # three blocks of states, the last one not full
    states, table = normal(11, 5).requires_grad_(), normal(13, 5, seed=1).requires_grad_()
    targets, offset = torch.arange(11) * 7 % 13, normal(13, seed=2) if given else None
    plain = F.cross_entropy(states @ table.T + (offset if given else 0), targets)
    ours = softmax_loss(states, table, targets, offset)
    torch.testing.assert_close(ours, plain)
    for got, want in zip(
        torch.autograd.grad(3 * ours, (states, table)), torch.autograd.grad(3 * plain, (states, table)), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_softmax_loss_of_a_hopeless_target_is_finite():
    states, table = torch.tensor([[1.0]], requires_grad=True), torch.tensor([[0.0], [500.0]])
    loss = softmax_loss(states, table, torch.tensor([0]))
    assert loss.item() == 500
    torch.testing.assert_close(torch.autograd.grad(loss, states)[0], torch.tensor([[500.0]]))
