"""The prefix tree of a large catalogue against a trie of dicts: build time and bytes per item."""

import sys
from dataclasses import replace

import numpy as np
import torch

from bbqrec_core import PrefixTree, build_tree
from bbqrec_lab.datasets.synthetic import distinct
from bbqrec_lab.measure import Plan, Side, interleave
from bbqrec_lab.speed.growth import tree_bytes

from .harness import Row, gain_row, rate_row

LEVELS, CODES = 4, 256


def dict_trie(rows: list[list[int]]) -> dict[int, dict]:
    """The simplest implementation: a trie of dicts with item rows (from 1) at the leaves."""
    root: dict[int, dict] = {}
    for item, code in enumerate(rows, start=1):
        node = root
        for token in code[:-1]:
            node = node.setdefault(token, {})
        node[code[-1]] = item
    return root


def dict_bytes(node: dict) -> int:
    """Bytes of a trie's dicts and item rows (Python shares small integers, so codes need no memory)."""
    below = (dict_bytes(child) if isinstance(child, dict) else sys.getsizeof(child) for child in node.values())
    return sys.getsizeof(node) + sum(below)


def _same_tree(tree: PrefixTree, trie: dict, codes: np.ndarray) -> str:
    """Follow a thousand items down both trees, and compare children and leaves."""
    for item in range(1, len(codes), max(len(codes) // 1000, 1)):
        node, place = trie, 0
        for depth, code in enumerate(codes[item].tolist()):
            children = slice(int(tree.first[depth][place]), int(tree.first[depth][place + 1]))
            if len(node) != children.stop - children.start:
                raise ArithmeticError(f"item {item}, depth {depth}: the trie has {len(node)} children, ours {children}")
            place = children.start + int(torch.searchsorted(tree.code[depth][children].int(), code))
            node = node[code]
        if node != item or int(tree.leaf[item]) != place or int(tree.items[tree.starts[place]]) != item:
            raise ArithmeticError(f"item {item} is at leaf {place} of the tree, the trie has item {node} there")
    return "a thousand items have equal leaves and equal numbers of children on their paths"


def tree(plan: Plan) -> list[Row]:
    """Build a tree of ten million distinct IDs with four codes."""
    items = plan.size(10_000_000, 5_000)
    number = distinct(np.random.default_rng(0), items, CODES**LEVELS)
    codes = np.zeros((items + 1, LEVELS), np.int64)
    for level in range(LEVELS):
        codes[1:, level] = number // CODES**level % CODES
    rows = codes[1:].tolist()
    built, trie = build_tree(codes), dict_trie(rows)
    checked = _same_tree(built, trie, codes)
    ours, theirs = tree_bytes(built) / items, dict_bytes(trie) / items
    del built, trie
    sides = {"ours": Side(lambda: build_tree(codes), items), "theirs": Side(lambda: dict_trie(rows), items)}
    seconds = interleave(sides, replace(plan, repetitions=min(plan.repetitions, 3)), warm_up=0)
    work = f"prefix tree of {items:,} items, {LEVELS} codes"
    pair, spent = (sides["ours"], sides["theirs"]), (seconds["ours"], seconds["theirs"])
    return [
        rate_row(f"{work}: build", "trie of Python dicts", "items", pair, spent, ">= 50", checked),
        gain_row(f"{work}: memory", "trie of Python dicts", "bytes/item", ours, theirs, "ours <= 40", ""),
    ]
