"""Laws of the ID table, its prefix tree, its health figures and the repairs, against dictionaries and loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from id_tables import SIZES, tables, trie_of
from tiny import semantic_ids

from bbqrec_core import SemanticIds, build_tree, health
from bbqrec_core.tokenizer.semantic_ids import (
    group_sizes,
    move_to_free,
)

BY_HAND = np.array([[9, 9], [0, 1], [2, 1], [0, 1], [0, 0], [2, 0]])  # row 0 is padding; items 1 and 3 collide


@settings(max_examples=60, deadline=None)
@given(table=tables(), gap=st.sampled_from((1, 2**26, 2**28)))
def test_the_prefix_tree_is_the_dictionary_trie(table, gap):
    """Codes far apart do not fit into 64 bits: with 2^26 two positions do, with 2^28 one."""
    table, seen = table * gap, np.arange(len(table)) % 3 == 1
    tree = build_tree(table, seen)
    children, leaves = trie_of(table)
    prefixes = [()]  # of the nodes at the depth reached
    for depth in range(table.shape[1]):
        first, code, parent = tree.first[depth].tolist(), tree.code[depth].tolist(), tree.parent[depth].tolist()
        assert len(first) == len(prefixes) + 1
        for n, prefix in enumerate(prefixes):
            assert code[first[n] : first[n + 1]] == children[prefix]
        assert parent == [n for n in range(len(prefixes)) for _ in range(first[n], first[n + 1])]
        prefixes = [(*prefixes[up], step) for up, step in zip(parent, code, strict=True)]
        known = {tuple(codes[: depth + 1]) for codes in table[seen].tolist()}
        assert tree.unseen[depth].tolist() == [prefix not in known for prefix in prefixes]
    assert tree.leaves == len(leaves)
    assert int(tree.leaf[0]) == -1
    assert [prefixes[leaf] for leaf in tree.leaf[1:].tolist()] == [tuple(codes) for codes in table[1:].tolist()]
    starts = tree.starts.tolist()
    for leaf, prefix in enumerate(prefixes):
        assert tree.items[starts[leaf] : starts[leaf + 1]].tolist() == leaves[prefix]
    assert tree.max_fanout.tolist() == [int(first.diff().max()) for first in (*tree.first, tree.starts)]


def test_ids_too_long_for_one_number_give_the_tree_of_their_ranks():
    """Codes up to 2^30 do not fit into 64 bits beside a row, so columns are sorted; the tree knows codes by order."""
    small = np.random.default_rng(0).integers(0, 4, (200, 3))
    large = np.array([3, 17, 2**20, 2**30])[small]
    one, other = build_tree(small), build_tree(large)
    for part in ("first", "parent"):
        assert all(torch.equal(a, b) for a, b in zip(getattr(one, part), getattr(other, part), strict=True))
    assert all(
        torch.equal(torch.tensor([3, 17, 2**20, 2**30])[a], b.long()) for a, b in zip(one.code, other.code, strict=True)
    )
    assert torch.equal(one.leaf, other.leaf)
    assert torch.equal(one.items, other.items)
    assert torch.equal(one.starts, other.starts)


def test_items_of_a_tree_stand_in_the_order_of_their_ids():
    table = np.random.default_rng(0).integers(0, 300, (2000, 3))
    tree = build_tree(table)
    assert torch.equal(tree.items, torch.from_numpy(np.lexsort(table[1:].T[::-1])).int() + 1)


def test_an_item_of_a_tree_whose_prefixes_are_shared_takes_less_than_forty_bytes():
    table = np.random.default_rng(0).integers(0, 32, (50_001, 4))
    parts = (part if isinstance(part, tuple) else (part,) for part in build_tree(table))
    assert sum(tensor.nbytes for part in parts for tensor in part) < 40 * 50_000


def test_health_of_a_table_done_by_hand():
    figures = health(BY_HAND, (4, 2))
    assert figures["collision_rate"] == pytest.approx(1 - 4 / 5)
    assert figures["colliding_items"] == 2
    assert figures["largest_group"] == 2
    assert figures["used"] == [2, 2]
    assert figures["dead"] == [2, 0]
    entropy = -(3 / 5 * math.log(3 / 5) + 2 / 5 * math.log(2 / 5))
    assert figures["perplexity"] == pytest.approx([math.exp(entropy), math.exp(entropy)])
    assert figures["fan_out"] == [2, 2]


def test_even_use_has_the_perplexity_of_the_codebook_and_one_code_has_one():
    table = np.array([[0, 0], [0, 1], [1, 1], [2, 1]])
    assert health(table, (3, 5))["perplexity"] == pytest.approx([3, 1])


@settings(max_examples=60, deadline=None)
@given(table=tables())
def test_collision_rate_is_zero_exactly_when_all_ids_differ(table):
    distinct = len({tuple(codes) for codes in table[1:].tolist()})
    figures = health(table, SIZES[: table.shape[1]])
    assert (figures["collision_rate"] == 0) == (distinct == len(table) - 1)
    assert figures["collision_rate"] == pytest.approx(1 - distinct / (len(table) - 1))
    assert (figures["largest_group"] == 1) == (figures["colliding_items"] == 0)


@settings(max_examples=60, deadline=None)
@given(table=tables())
def test_groups_are_counted_by_hand(table):
    sizes, group = group_sizes(table)
    _, leaves = trie_of(table)
    assert sorted(sizes.tolist()) == sorted(len(rows) for rows in leaves.values())
    for rows in leaves.values():
        assert len({group[row - 1] for row in rows}) == 1
        assert sizes[group[rows[0] - 1]] == len(rows)


def nearest_by_hand(table, residual, codes):
    """The repair on dictionaries: per prefix the best served item of each code stays, others move in that order."""
    repaired, gap = table.copy(), lambda row, code: float(((residual[row] - codes[code]) ** 2).sum())
    prefixes = {}
    for row in range(1, len(table)):
        prefixes.setdefault(tuple(table[row, :-1]), []).append(row)
    for rows in prefixes.values():
        taken, waiting = set(), []
        for row in sorted(rows, key=lambda row: gap(row, table[row, -1])):
            if table[row, -1] in taken:
                waiting.append(row)
            taken.add(table[row, -1])
        for row in waiting:
            free = [code for code in range(len(codes)) if code not in taken]
            if free:
                repaired[row, -1] = min(free, key=lambda code: gap(row, code))
                taken.add(repaired[row, -1])
    return repaired


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("items", [13, 2100])
def test_moving_to_free_codes_is_the_loop_over_prefixes(items, length):
    rng = np.random.default_rng(items)
    codes = rng.normal(size=(7, 3))
    table, residual = rng.integers(0, 7 if length == 1 else 300, (items + 1, length)), rng.normal(size=(items + 1, 3))
    table[:, -1] = rng.integers(0, 7, items + 1)
    repaired = move_to_free(table, residual, codes)
    assert np.array_equal(repaired, nearest_by_hand(table, residual, codes))
    assert np.array_equal(repaired[:, :-1], table[:, :-1])


def test_ids_are_unique_wherever_a_prefix_has_room():
    rng = np.random.default_rng(0)
    table = np.stack([np.arange(15) // 5, np.zeros(15, int)], axis=1)[np.append(0, 1 + rng.permutation(14))]
    residual, codes = rng.normal(size=(15, 3)), rng.normal(size=(5, 3))
    repaired = move_to_free(table, residual, codes)
    assert health(repaired, (3, 5))["collision_rate"] == 0
    order = np.append(0, 1 + rng.permutation(14))
    assert np.array_equal(move_to_free(table[order], residual[order], codes), repaired[order])  # numbers do not matter
    crowded = move_to_free(table, residual, codes[:4])
    assert health(crowded, (3, 4))["used"] == [3, 4]


def test_ids_come_back_from_disk_as_they_were(tmp_path):
    for signals in (("text", "image", "id"), ()):
        ids = semantic_ids(11, (4, 4, 2))
        ids = SemanticIds(**(vars(ids) | {"signals": signals}))
        ids.save(tmp_path / "ids.npz")
        back = SemanticIds.load(tmp_path / "ids.npz")
        for name, value in vars(ids).items():
            found = getattr(back, name)
            if isinstance(value, np.ndarray):
                assert np.array_equal(found, value)
                assert found.dtype == value.dtype
            else:
                assert found == value
        assert back.sid_len == 3
