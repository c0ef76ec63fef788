"""Laws of decoding: exact scores against enumeration, beam search against exact scores, in float64."""

import copy
import math
from itertools import product

import numpy as np
import pytest
import torch

from bbqrec_core import beam_search, build_tree, exact_scores
from bbqrec_core.recommender import decoding
from bbqrec_core.recommender.code_embeddings import CodeHead, CodeVectors
from bbqrec_core.recommender.decoding import Frontier, Prompt

USERS, N, WIDTH = 3, 23, 6
SIZES = (5, 3, 2)
NONE = -torch.inf


@pytest.fixture(scope="module", params=[True, False], ids=["prefixes", "codes alone"])
def head(request, table):
    torch.manual_seed(0)
    head = CodeHead(CodeVectors(table, SIZES, WIDTH, request.param), layers=2, width=WIDTH, heads=3, dropout=0.3)
    for weight in (*head.biases, *head.vectors.parameters()):
        torch.nn.init.normal_(weight)
    return head.double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def states():
    return torch.randn(USERS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def table():
    """IDs of 23 items over at most 30 leaves: some collide, some are missing."""
    rng = np.random.default_rng(3)
    return np.stack([rng.integers(0, size, N + 1) for size in SIZES], axis=1)


def node_of(vectors, prefix):
    """The node of a prefix (a tuple of codes) in the tree that a head knows; None where no item has it."""
    depth = len(prefix) - 1
    for row in range(1, len(vectors.node)):
        nodes = vectors.node[row, : depth + 1].tolist()
        if prefix == tuple(int(vectors.code_of(d, torch.tensor(node))) for d, node in enumerate(nodes)):
            return nodes[depth]
    return None


def vector(vectors, prefix):
    """The vector of the last code of a prefix, legal or not, looked up one number at a time."""
    depth = len(prefix) - 1
    out = vectors.codes[depth].weight[prefix[-1]]
    node = node_of(vectors, prefix)
    return out + vectors.prefixes[depth - 1].weight[node] if depth and vectors.prefixes and node is not None else out


def log_prob(head, states, codes, depth=3):
    """Log-probability of the first `depth` codes of one ID, legal or not, level by level, for each state."""
    total, prefix = torch.zeros(len(states), dtype=states.dtype), tuple(codes.tolist())
    for level in range(depth):
        tokens = [head.start(states)]
        for before in range(level):
            tokens.append(sum(vector(head.vectors, prefix[: k + 1]) for k in range(before + 1)).expand(len(states), -1))
        x = torch.stack(tokens, 1) + head.depth[: level + 1]
        out, _ = head.blocks(x, [torch.full((level + 1,) * 2, NONE).triu(1)] * 2)
        logits = [out[:, -1] @ vector(head.vectors, (*prefix[:level], code)) for code in range(SIZES[level])]
        total += (torch.stack(logits, 1) + head.biases[level]).log_softmax(-1)[:, prefix[level]]
    return total


def over(head, table):
    """The same head over the tree of other items: what it knows of a prefix goes along."""
    other = CodeHead(CodeVectors(table, SIZES, WIDTH, bool(head.vectors.prefixes)), 2, WIDTH, 3, 0.3).double().eval()
    own = {name: value for name, value in head.state_dict().items() if "vectors.prefixes" not in name}
    other.load_state_dict(own, strict=False)
    for depth, weights in enumerate(other.vectors.prefixes, start=2):
        for codes in {tuple(row[:depth]) for row in table[1:].tolist()}:
            node = node_of(head.vectors, codes)
            if node is not None:
                weights.weight.data[node_of(other.vectors, codes)] = head.vectors.prefixes[depth - 2].weight[node]
    return other.requires_grad_(False)


def enumerated(head, states, table):
    """The score of every item by a loop, one item at a time; row 0 is -inf."""
    columns = [log_prob(head, states, codes) for codes in torch.from_numpy(table[1:])]
    return torch.stack([torch.full((len(states),), NONE, dtype=states.dtype), *columns], 1)


def test_the_ids_of_this_file_collide_and_leave_gaps(table):
    tree = build_tree(table)
    assert max(tree.starts.diff()) > 1
    assert tree.leaves < 30
    assert len({int(n) for n in tree.first[1].diff()}) > 1


def test_whole_ids_score_the_sum_of_conditional_log_probabilities(head, states, table):
    rows = [4, 9, 17]
    wanted = [
        log_prob(head, state[None], torch.from_numpy(table[row]))[0] for row, state in zip(rows, states, strict=True)
    ]
    torch.testing.assert_close(head(states, head.vectors.node[rows]), torch.stack(wanted))


def test_probabilities_of_all_possible_ids_sum_to_one(head, states):
    every = np.array([(0, 0, 0), *product(*map(range, SIZES))])
    whole = over(head, every)
    scores = torch.stack([whole(states, nodes.expand(USERS, -1)) for nodes in whole.vectors.node[1:]], 1)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(USERS, dtype=torch.float64))


def test_prefixes_at_zero_are_the_model_without_them(states, table):
    torch.manual_seed(0)
    plain, rich = (
        CodeHead(CodeVectors(table, SIZES, WIDTH, prefixes), 2, WIDTH, 3, 0.3).double().eval()
        for prefixes in (False, True)
    )
    rich.load_state_dict(plain.state_dict(), strict=False)
    assert [tuple(part.weight.shape) for part in rich.vectors.prefixes] == [
        (len({tuple(row[:depth]) for row in table[1:].tolist()}), WIDTH) for depth in (2, 3)
    ]
    tree = build_tree(table)
    assert torch.equal(exact_scores(Prompt(rich, states), tree), exact_scores(Prompt(plain, states), tree))


@pytest.mark.parametrize("above", [[0, 3, 3, 1], []], ids=["some", "none"])
def test_logits_behind_prefixes_and_their_gradients_are_those_of_whole_vectors(head, table, above):
    vectors = copy.deepcopy(head.vectors).requires_grad_(True)
    node = torch.tensor(above, dtype=torch.long)
    out = torch.randn(len(above), WIDTH, dtype=torch.float64, requires_grad=True)
    tree, whole = build_tree(table), [vectors.codes[1].weight.expand(len(above), -1, -1).clone()]
    for line, parent in enumerate(above):
        for child in range(int(tree.first[1][parent]), int(tree.first[1][parent + 1])) if vectors.prefixes else ():
            added = torch.zeros(len(above), SIZES[1], WIDTH, dtype=torch.float64)
            added[line, tree.code[1][child]] = 1
            whole.append(added * vectors.prefixes[0].weight[child])
    wanted = (out[:, None] * sum(whole)).sum(-1)
    found = vectors.logits(out, 1, node)
    torch.testing.assert_close(found, wanted)
    parts = [out, vectors.codes[1].weight, *(table.weight for table in vectors.prefixes[:1])]
    weight = torch.randn_like(wanted)
    grads = [torch.autograd.grad((x * weight).sum(), parts, materialize_grads=True) for x in (found, wanted)]
    torch.testing.assert_close(*grads)


def test_exact_scores_are_those_of_enumeration(head, states, table):
    torch.testing.assert_close(exact_scores(Prompt(head, states), build_tree(table)), enumerated(head, states, table))


def test_below_the_deepest_prefix_that_training_saw_the_rest_is_an_even_share(head, states, table):
    seen = np.arange(N + 1) % 3 == 1
    found = exact_scores(Prompt(head, states), build_tree(table, seen))
    own = enumerated(head, states, table)
    ids, known = table[1:].tolist(), table[seen].tolist()
    backed = 0
    for row, codes in enumerate(ids, start=1):
        deepest = max(d for d in range(len(SIZES) + 1) if d == 0 or codes[:d] in [other[:d] for other in known])
        expected = own[:, row]
        if deepest < len(SIZES):
            backed += 1
            total = log_prob(head, states, torch.tensor(codes), deepest)
            fans = [len({o[d] for o in ids if o[:d] == codes[:d]}) for d in range(deepest, len(SIZES))]
            expected = total - sum(map(math.log, fans))
        torch.testing.assert_close(found[:, row], expected)
    assert 0 < backed < N


def test_training_that_saw_every_item_changes_no_score(head, states, table):
    seen = np.arange(N + 1) > 0
    assert torch.equal(
        exact_scores(Prompt(head, states), build_tree(table, seen)),
        exact_scores(Prompt(head, states), build_tree(table)),
    )


def test_a_wide_beam_is_exact_with_new_items_too(head, states, table):
    tree = build_tree(table, np.arange(N + 1) % 3 == 1)
    assert ranked(*beam_search(Frontier(Prompt(head, states)), tree, 30)) == everything(
        exact_scores(Prompt(head, states), tree)
    )


@pytest.mark.parametrize("new", [False, True])
def test_above_a_floor_scores_are_exact_and_below_it_nothing_is_extended(head, states, table, new, monkeypatch):
    tree = build_tree(table, np.arange(N + 1) % 3 == 1 if new else None)
    whole = exact_scores(Prompt(head, states), tree)
    floor = whole[:, 1:].median(1).values - 1e-9
    extended = []
    advance = Frontier.advance
    monkeypatch.setattr(Frontier, "advance", lambda *given: extended.append(len(given[1])) or advance(*given))
    for block in (decoding.BLOCK, 1):
        monkeypatch.setattr(decoding, "BLOCK", block)
        found = exact_scores(Prompt(head, states), tree, floor)
        above = whole >= floor[:, None]
        torch.testing.assert_close(found[above], whole[above])
        assert bool((found[~above] == NONE).all())
    assert sum(extended[:2]) < USERS * sum(len(code) for code in tree.code[:-1])
    torch.testing.assert_close(exact_scores(Prompt(head, states), tree, torch.full((USERS,), NONE)), whole)
    assert bool((exact_scores(Prompt(head, states), tree, torch.full((USERS,), torch.inf)) == NONE).all())


@pytest.mark.parametrize("new", [False, True])
def test_above_a_floor_of_sums_scores_are_exact(head, states, table, new):
    tree = build_tree(table, np.arange(N + 1) % 3 == 1 if new else None)
    whole, added = (
        exact_scores(Prompt(head, states), tree),
        3 * torch.randn(USERS, N + 1, generator=torch.Generator().manual_seed(5)),
    )
    floor = (whole + added)[:, 1:].median(1).values - 1e-9
    found, above = exact_scores(Prompt(head, states), tree, floor, added), whole + added >= floor[:, None]
    torch.testing.assert_close(found[above], whole[above])
    assert bool((found == NONE)[:, 1:].any())


def test_blocks_of_users_change_no_exact_score(head, states, table, monkeypatch):
    whole = exact_scores(Prompt(head, states), build_tree(table))
    monkeypatch.setattr(decoding, "BLOCK", 1)
    torch.testing.assert_close(exact_scores(Prompt(head, states), build_tree(table)), whole)


def test_exact_scores_leave_the_tree_usable_again(head, states, table):
    tree = build_tree(table)
    before = [part.clone() for part in (tree.leaf, tree.items, tree.starts)]
    assert torch.equal(exact_scores(Prompt(head, states), tree), exact_scores(Prompt(head, states), tree))
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
    items, scores = beam_search(Frontier(Prompt(head, states)), build_tree(table), width)
    assert ranked(items, scores) == everything(exact_scores(Prompt(head, states), build_tree(table)))
    for user in scores:
        assert bool((user[user > NONE].diff() <= 0).all())  # best first, empty places left out


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_narrow_beam_lists_existing_ids_with_their_exact_scores(head, states, table, width):
    items, scores = beam_search(Frontier(Prompt(head, states)), build_tree(table), width)
    exact = exact_scores(Prompt(head, states), build_tree(table))
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


def loop_beam(head, state, ids, width):
    """Beam search of one user over a list of IDs, prefix by prefix: ID -> score."""
    beams = {(): 0.0}
    for depth in range(len(SIZES)):
        grown = {codes[: depth + 1] for codes in ids if codes[:depth] in beams}
        scores = {prefix: float(log_prob(head, state[None], torch.tensor(prefix), depth + 1)) for prefix in grown}
        beams = dict(sorted(scores.items(), key=lambda kept: -kept[1])[:width])
    return beams


def test_a_beam_keeps_the_best_prefixes_of_each_level(head, states, table):
    items, _ = beam_search(Frontier(Prompt(head, states)), build_tree(table), 2)
    for user, state in enumerate(states):
        wanted = set(loop_beam(head, state, list(map(tuple, table[1:].tolist())), 2))
        assert {tuple(table[row]) for row in items[user].tolist() if row} == wanted


MASKED = torch.tensor([[1, 5, 5, 0, 0], [0, 0, 0, 0, 0], [2, 3, 7, 11, 19]])


def test_masked_items_leave_the_ranking_and_nothing_else_changes(head, states, table):
    scores = exact_scores(Prompt(head, states), build_tree(table)).scatter(1, MASKED, NONE)
    assert ranked(*beam_search(Frontier(Prompt(head, states)), build_tree(table), 30, MASKED)) == everything(scores)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_masked_items_leave_the_tree_before_decoding(head, states, table, width):
    """A narrow beam with masked items is a beam over the items that are left, whose probabilities stay."""
    found = ranked(*beam_search(Frontier(Prompt(head, states)), build_tree(table), width, MASKED))
    for user, state in enumerate(states):
        left = {row: tuple(table[row].tolist()) for row in range(1, N + 1) if row not in MASKED[user].tolist()}
        beams = loop_beam(head, state, list(left.values()), width)
        assert [rows for _, rows in found[user]] == [[r for r in left if left[r] == codes] for codes in beams]
        assert [score for score, _ in found[user]] == pytest.approx(list(beams.values()), abs=1e-8)


def test_a_user_whose_items_are_all_masked_gets_an_empty_list(head, states, table):
    masked = torch.arange(1, N + 1).expand(USERS, -1).clone()
    masked[1:] = 0
    items, scores = beam_search(Frontier(Prompt(head, states)), build_tree(table), 4, masked)
    assert items[0].tolist() == [0] * items.shape[1]
    assert bool((scores[0] == NONE).all())
    others = beam_search(Frontier(Prompt(head, states[1:])), build_tree(table), 4)
    assert ranked(items[1:], scores[1:]) == ranked(*others)


def test_a_single_item_is_always_found(head, states):
    alone = over(head, np.array([[0, 0, 0], [4, 2, 1]]))
    items, scores = beam_search(Frontier(Prompt(alone, states)), build_tree(np.array([[0, 0, 0], [4, 2, 1]])), 3)
    wanted = log_prob(alone, states, torch.tensor([4, 2, 1]))
    assert ranked(items, scores) == [[(round(float(score), 9), [1])] for score in wanted]
