"""Laws of decoding: exact scores against enumeration, beam search against exact scores, in float64."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from bbqrec_core import decoding
from bbqrec_core.decoding import Frontier, beam_search, exact_scores, leaf_scores
from bbqrec_core.semantic_ids import build_tree
from bbqrec_core.sequence_model import CodeHead

USERS, N, WIDTH = 3, 23, 6
SIZES = (5, 3, 2)
NONE = -torch.inf


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(0)
    tables = torch.nn.ModuleList(torch.nn.Embedding(size, WIDTH) for size in SIZES)
    head = CodeHead(tables, layers=2, width=WIDTH, heads=3, dropout=0.3).double().eval()
    for bias in head.biases:
        torch.nn.init.normal_(bias)
    return head.requires_grad_(False)


@pytest.fixture(scope="module")
def states():
    return torch.randn(USERS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def table():
    """IDs of 23 items over at most 30 leaves: some collide, some are missing."""
    rng = np.random.default_rng(3)
    return np.stack([rng.integers(0, size, N + 1) for size in SIZES], axis=1)


def enumerated(head, states, table):
    """The score of every item by teacher forcing, one item at a time; row 0 is -inf."""
    columns = [head(states, torch.from_numpy(codes).expand(len(states), -1)) for codes in table[1:]]
    return torch.stack([torch.full((len(states),), NONE, dtype=states.dtype), *columns], 1)


def test_the_ids_of_this_file_collide_and_leave_gaps(table):
    tree = build_tree(table)
    assert max(tree.starts.diff()) > 1
    assert tree.leaves < 30
    assert len({int(n) for n in tree.first[1].diff()}) > 1


def test_whole_ids_score_the_sum_of_conditional_log_probabilities(head, states):
    codes = torch.tensor([[4, 0, 1], [2, 2, 0], [0, 1, 1]])
    total = torch.zeros(USERS, dtype=torch.float64)
    for level in range(3):
        prefix = [head.start(states)]
        for before in range(level):
            prefix.append(sum(head.tables[k](codes[:, k]) for k in range(before + 1)))
        x = torch.stack(prefix, 1) + head.depth[: level + 1]
        out, _ = head.blocks(x, [torch.full((level + 1,) * 2, NONE).triu(1)] * 2)
        logits = out[:, -1] @ head.tables[level].weight.T + head.biases[level]
        total += logits.log_softmax(-1)[torch.arange(USERS), codes[:, level]]
    torch.testing.assert_close(head(states, codes), total)


def test_probabilities_of_all_possible_ids_sum_to_one(head, states):
    every = torch.cartesian_prod(*(torch.arange(size) for size in SIZES))
    scores = torch.stack([head(states, codes.expand(USERS, -1)) for codes in every], 1)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(USERS, dtype=torch.float64))


def test_exact_scores_are_those_of_enumeration(head, states, table):
    torch.testing.assert_close(exact_scores(head, states, build_tree(table)), enumerated(head, states, table))


def test_below_the_deepest_prefix_that_training_saw_the_rest_is_an_even_share(head, states, table):
    seen = np.arange(N + 1) % 3 == 1
    found = exact_scores(head, states, build_tree(table, seen))
    own = enumerated(head, states, table)
    ids, known = table[1:].tolist(), table[seen].tolist()
    backed = 0
    for row, codes in enumerate(ids, start=1):
        deepest = max(d for d in range(len(SIZES) + 1) if d == 0 or codes[:d] in [other[:d] for other in known])
        expected = own[:, row]
        if deepest < len(SIZES):
            backed += 1
            every = [torch.tensor([*codes[:deepest], *rest]) for rest in product(*map(range, SIZES[deepest:]))]
            total = torch.stack([head(states, code.expand(USERS, -1)) for code in every]).logsumexp(0)
            fans = [len({o[d] for o in ids if o[:d] == codes[:d]}) for d in range(deepest, len(SIZES))]
            expected = total - sum(map(math.log, fans))
        torch.testing.assert_close(found[:, row], expected)
    assert 0 < backed < N


def test_training_that_saw_every_item_changes_no_score(head, states, table):
    seen = np.arange(N + 1) > 0
    assert torch.equal(
        exact_scores(head, states, build_tree(table, seen)), exact_scores(head, states, build_tree(table))
    )


def test_a_wide_beam_is_exact_with_new_items_too(head, states, table):
    tree = build_tree(table, np.arange(N + 1) % 3 == 1)
    assert ranked(*beam_search(Frontier(head, states), tree, 30)) == everything(exact_scores(head, states, tree))


@pytest.mark.parametrize("new", [False, True])
def test_above_a_floor_scores_are_exact_and_below_it_nothing_is_extended(head, states, table, new, monkeypatch):
    tree = build_tree(table, np.arange(N + 1) % 3 == 1 if new else None)
    whole = exact_scores(head, states, tree)
    floor = whole[:, 1:].median(1).values - 1e-9
    extended = []
    advance = Frontier.advance
    monkeypatch.setattr(Frontier, "advance", lambda *given: extended.append(len(given[1])) or advance(*given))
    for block in (decoding.BLOCK, 1):
        monkeypatch.setattr(decoding, "BLOCK", block)
        found = exact_scores(head, states, tree, floor)
        above = whole >= floor[:, None]
        torch.testing.assert_close(found[above], whole[above])
        assert bool((found[~above] == NONE).all())
    assert sum(extended[:2]) < USERS * sum(len(code) for code in tree.code[:-1])
    torch.testing.assert_close(exact_scores(head, states, tree, torch.full((USERS,), NONE)), whole)
    assert bool((exact_scores(head, states, tree, torch.full((USERS,), torch.inf)) == NONE).all())


@pytest.mark.parametrize("new", [False, True])
def test_the_score_of_one_leaf_is_that_among_all(head, states, table, new):
    tree = build_tree(table, np.arange(N + 1) % 3 == 1 if new else None)
    whole = exact_scores(head, states, tree)
    for row in range(1, N + 1):
        torch.testing.assert_close(leaf_scores(head, states, tree, tree.leaf[row].expand(USERS)), whole[:, row])


def test_blocks_of_users_change_no_exact_score(head, states, table, monkeypatch):
    whole = exact_scores(head, states, build_tree(table))
    monkeypatch.setattr(decoding, "BLOCK", 1)
    torch.testing.assert_close(exact_scores(head, states, build_tree(table)), whole)


def test_exact_scores_leave_the_tree_usable_again(head, states, table):
    tree = build_tree(table)
    before = [part.clone() for part in (tree.leaf, tree.items, tree.starts)]
    assert torch.equal(exact_scores(head, states, tree), exact_scores(head, states, tree))
    assert all(torch.equal(a, b) for a, b in zip(before, (tree.leaf, tree.items, tree.starts), strict=True))


def ranked(items, scores):
    """Per user: [(score rounded, rows that share it)] best first, without empty places."""
    out = []
    for rows, values in zip(items.tolist(), scores.tolist(), strict=True):
        groups = {}
        for row, value in zip(rows, values, strict=True):
            assert (row == 0) == (value == NONE)
            if row:
                groups.setdefault(round(value, 9), []).append(row)
        out.append([(value, sorted(groups[value])) for value in sorted(groups, reverse=True)])
    return out


def everything(scores):
    return ranked(torch.arange(N + 1).expand(USERS, -1).where(scores > NONE, 0), scores)


@pytest.mark.parametrize("width", [30, 1000])
def test_a_beam_as_wide_as_the_tree_is_exact_ranking(head, states, table, width):
    items, scores = beam_search(Frontier(head, states), build_tree(table), width)
    assert ranked(items, scores) == everything(exact_scores(head, states, build_tree(table)))
    for user in scores:
        assert bool((user[user > NONE].diff() <= 0).all())  # best first, empty places left out


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_narrow_beam_lists_existing_ids_with_their_exact_scores(head, states, table, width):
    items, scores = beam_search(Frontier(head, states), build_tree(table), width)
    exact = exact_scores(head, states, build_tree(table))
    groups = {tuple(codes): [] for codes in table[1:].tolist()}
    for row, codes in enumerate(table[1:].tolist(), start=1):
        groups[tuple(codes)].append(row)
    for user in range(USERS):
        listed = [row for row in items[user].tolist() if row]
        assert len(listed) == len(set(listed))
        assert {tuple(table[row]) for row in listed} <= groups.keys()
        assert len({tuple(table[row]) for row in listed}) <= width
        assert sorted(listed) == sorted(row for codes in {tuple(table[r]) for r in listed} for row in groups[codes])
    real = items > 0
    torch.testing.assert_close(scores[real], exact.gather(1, items)[real])


def test_a_beam_keeps_the_best_prefixes_of_each_level(head, states, table):
    width = 2
    items, _ = beam_search(Frontier(head, states), build_tree(table), width)
    for user, state in enumerate(states):
        beams = {(): 0.0}
        for depth in range(3):
            grown = {}
            for prefix in {tuple(codes[: depth + 1]) for codes in table[1:].tolist()}:
                if prefix[:-1] in beams:
                    padded = torch.tensor([*prefix, 0, 0][:3])
                    partial = score_prefix(head, state[None], padded[None], depth)
                    grown[prefix] = float(partial)
            beams = dict(sorted(grown.items(), key=lambda kept: -kept[1])[:width])
        assert {tuple(table[row]) for row in items[user].tolist() if row} == set(beams)


def score_prefix(head, state, codes, depth):
    """Log-probability of the first depth + 1 codes, by summing over all ways to go on."""
    left = SIZES[depth + 1 :]
    rest = torch.cartesian_prod(*map(torch.arange, left)).view(-1, len(left)) if left else torch.zeros(1, 0).long()
    whole = torch.cat([codes[:, : depth + 1].expand(len(rest), -1), rest], 1)
    return head(state.expand(len(rest), -1), whole).logsumexp(0)


MASKED = torch.tensor([[1, 5, 5, 0, 0], [0, 0, 0, 0, 0], [2, 3, 7, 11, 19]])


def test_masked_items_leave_the_ranking_and_nothing_else_changes(head, states, table):
    scores = exact_scores(head, states, build_tree(table)).scatter(1, MASKED, NONE)
    assert ranked(*beam_search(Frontier(head, states), build_tree(table), 30, MASKED)) == everything(scores)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_masked_items_leave_the_tree_before_decoding(head, states, table, width):
    """A narrow beam with masked items equals the same beam over the tree of the items that are left."""
    found = ranked(*beam_search(Frontier(head, states), build_tree(table), width, MASKED))
    for user in range(USERS):
        left = [row for row in range(1, N + 1) if row not in MASKED[user].tolist()]
        items, scores = beam_search(Frontier(head, states[user, None]), build_tree(table[[0, *left]]), width)
        [wanted] = ranked(items, scores)
        assert found[user] == [(value, [left[row - 1] for row in rows]) for value, rows in wanted]


def test_a_user_whose_items_are_all_masked_gets_an_empty_list(head, states, table):
    masked = torch.arange(1, N + 1).expand(USERS, -1).clone()
    masked[1:] = 0
    items, scores = beam_search(Frontier(head, states), build_tree(table), 4, masked)
    assert items[0].tolist() == [0] * items.shape[1]
    assert bool((scores[0] == NONE).all())
    assert ranked(items[1:], scores[1:]) == ranked(*beam_search(Frontier(head, states[1:]), build_tree(table), 4))


def test_a_single_item_is_always_found(head, states):
    table = np.array([[0, 0, 0], [4, 2, 1]])
    items, scores = beam_search(Frontier(head, states), build_tree(table), 3)
    assert ranked(items, scores) == [[(round(float(s), 9), [1])] for s in enumerated(head, states, table)[:, 1]]
