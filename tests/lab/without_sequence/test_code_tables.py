"""What a ranking model reads of an item: tokens that items share exactly where their IDs say so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import PLANTED, planted_data, semantic_ids

from bbqrec_core import SemanticIds
from bbqrec_lab.experiments.presets import make_config
from bbqrec_lab.without_sequence import code_tables
from bbqrec_lab.without_sequence.code_tables import FORMS, code_input

ITEMS, SIZES = 60, (4, 5, 6)


@pytest.fixture(scope="module")
def ids() -> SemanticIds:
    return semantic_ids(ITEMS, SIZES)


@pytest.mark.parametrize("form", FORMS)
def test_tokens_are_rows_of_the_table_and_padding_has_none(ids: SemanticIds, form: str) -> None:
    given = code_input(ids, form, np.ones(ITEMS + 1, int), 0)
    assert not given.tokens[0].any()
    assert given.tokens.max() <= given.rows
    assert (given.tokens[1:] > 0).any(1).all()
    assert given.stored == 2 * len(SIZES)


def test_single_codes_have_a_row_for_each_code_of_each_level(ids: SemanticIds) -> None:
    given = code_input(ids, "codes", np.ones(ITEMS + 1, int), 0)
    assert given.rows == sum(SIZES)
    assert (given.tokens[1:] == ids.code_ids[1:] + np.array([1, 5, 10])).all()


def test_prefixes_agree_as_far_as_the_ids_do(ids: SemanticIds) -> None:
    tokens = code_input(ids, "prefixes", np.ones(ITEMS + 1, int), 0).tokens
    for length in (1, 2, 3):
        same = (ids.code_ids[1:, None, :length] == ids.code_ids[None, 1:, :length]).all(-1)
        equal = tokens[1:, None, length - 1] == tokens[None, 1:, length - 1]
        assert equal[same].all()
        assert equal[~same].mean() < 0.3, "others share a row only by chance"


def test_n_grams_are_pairs_of_neighbours(ids: SemanticIds) -> None:
    tokens = code_input(ids, "n-grams", np.ones(ITEMS + 1, int), 0).tokens
    assert tokens.shape == (ITEMS + 1, len(SIZES) - 1)
    same = (ids.code_ids[1:, None, 1:] == ids.code_ids[None, 1:, 1:]).all(-1)
    equal = tokens[1:, None, 1] == tokens[None, 1:, 1]
    assert equal[same].all()
    assert equal[~same].mean() < 0.2, "others share a row only by chance"
    one = semantic_ids(ITEMS, (80,))
    assert code_input(one, "n-grams", np.ones(ITEMS + 1, int), 0).tokens.shape == (ITEMS + 1, 1)


def test_the_hash_depends_on_the_seed_and_spreads(ids: SemanticIds) -> None:
    first, same, other = (code_tables.hashed_numbers(ITEMS, seed).tokens for seed in (0, 0, 1))
    assert (first == same).all()
    assert (first != other).any()
    assert len(np.unique(first)) > ITEMS / 4, "about half of 30 rows are hit by 60 numbers at random, and more"


def test_pieces_join_what_often_comes_together() -> None:
    codes = np.array([[0, 0, 0], *([[1, 2, 3]] * 20), *([[0, 1, 0], [3, 0, 2]] * 5)])
    ids = semantic_ids(len(codes) - 1, (4, 4, 4))
    ids = SemanticIds(**{**vars(ids), "code_ids": codes})
    counts = np.array([0, *([50] * 20), *([1] * 10)])
    tokens = code_input(ids, "pieces", counts, 0).tokens
    used = (tokens > 0).sum(1)
    assert used[1] < 3, "a frequent ID is one or two pieces"
    assert (tokens[1:21] == tokens[1]).all()
    assert used[21] >= used[1]


@pytest.mark.parametrize("frequent", [5, 9])
def test_events_decide_what_becomes_a_piece(frequent: int) -> None:
    pairs = [(first, second) for first in range(4) for second in range(8)]
    codes = np.array([(0, 0), *pairs])
    ids = SemanticIds(**{**vars(semantic_ids(32, (4, 8))), "code_ids": codes})
    counts = np.ones(33, int)
    counts[frequent] = 100
    used = (code_input(ids, "pieces", counts, 0).tokens > 0).sum(1)
    assert np.flatnonzero(used == 1).tolist() == [frequent]  # the table has room for one pair


def test_every_item_that_shares_its_tokens_counts() -> None:
    tokens = np.array([[0, 0], [1, 2], [1, 2], [1, 2], [3, 4], [1, 3], [3, 4], [2, 1]])
    assert code_tables.sharing(code_tables.ItemInput(tokens, 4, None, 4)) == 5


def test_text_only_ids_of_data_without_text_have_other_signals(tmp_path: Path) -> None:
    data, config = planted_data(tmp_path, PLANTED), make_config("smoke")
    image = {"image": data.features["image"]}
    assert code_tables.text_only_signals(data, config) == ["text"]
    assert code_tables.text_only_signals(replace(data, features=image), config) == ["image"]
    assert code_tables.text_only_signals(replace(data, features={}), config) == []


def test_another_form_is_refused(ids: SemanticIds) -> None:
    with pytest.raises(ValueError, match="'words'"):
        code_input(ids, "words", np.ones(ITEMS + 1, int), 0)
