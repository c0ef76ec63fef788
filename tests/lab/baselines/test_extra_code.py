"""Laws of TIGER's repair, against dictionaries."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from id_tables import SIZES, tables, trie_of
from tiny import ids_config, lab_tokenizer_config, planted_data

from bbqrec_core import health
from bbqrec_lab.baselines.extra_code import append_extra, with_extra
from bbqrec_lab.baselines.tokenizers import make_tokenized
from bbqrec_lab.datasets.synthetic import random_ids


@settings(max_examples=60, deadline=None)
@given(table=tables(), seed=st.integers(0, 99))
def test_an_extra_code_makes_ids_unique_and_does_not_depend_on_item_numbers(table, seed):
    longer, size = append_extra(table)
    _, leaves = trie_of(table)
    assert np.array_equal(longer[:, :-1], table)
    assert health(longer, (*SIZES[: table.shape[1]], size))["collision_rate"] == 0
    assert size == max(len(rows) for rows in leaves.values())
    for rows in leaves.values():
        assert sorted(longer[rows, -1].tolist()) == list(range(len(rows)))
    order = np.append(0, 1 + np.random.default_rng(seed).permutation(len(table) - 1))
    moved, moved_size = append_extra(table[order])
    assert moved_size == size
    assert {tuple(codes) for codes in moved[1:].tolist()} == {tuple(codes) for codes in longer[1:].tolist()}


def test_an_extra_code_numbers_items_that_share_an_id():
    ids = random_ids(20, 3, 4, 6)
    table = ids.code_ids.copy()
    table[2] = table[1]
    longer = with_extra(replace(ids, code_ids=table))
    assert longer.code_ids[1:3, -1].tolist() == [0, 1]
    assert longer.sizes == (4, 4, 4, 2)
    assert len(np.unique(longer.code_ids[1:], axis=0)) == 20


@pytest.mark.parametrize("source", ["learned", "random"])
def test_settings_that_ask_for_an_extra_code_get_it_on_the_ids_before_a_repair(tmp_path, source):
    data = planted_data(tmp_path)
    none, extra = (
        make_tokenized(
            data, ids_config(source=source), lab_tokenizer_config(uniqueness=kind, codes=4), 0, tmp_path / kind
        )
        for kind in ("none", "extra")
    )
    assert none.health["after"]["collision_rate"] > 0 == extra.health["after"]["collision_rate"]
    assert extra.health == {"before": none.health["before"], "after": health(extra.ids.code_ids, extra.ids.sizes)}
    assert np.array_equal(extra.ids.code_ids, with_extra(none.ids).code_ids)
    assert extra.ids.sizes == with_extra(none.ids).sizes
    assert np.array_equal(extra.ids.raw_codes, none.ids.raw_codes)
    assert extra.ids.learned == none.ids.learned == extra.ids.sid_len - 1
