"""IDs as files: what is written comes back, and a file that does not fit the data is refused in one line."""

import json

import numpy as np
import polars as pl
import pytest
from tiny import ids_config, lab_tokenizer_config, planted_data

from bbqrec_lab.baselines.tokenizers import make_tokenized
from bbqrec_lab.datasets.id_files import read_ids, write_ids


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("exchange"))


@pytest.fixture
def codes(data):
    return np.vstack([np.zeros((1, 3), int), np.random.default_rng(0).integers(0, 300, (data.n_items, 3))])


@pytest.mark.parametrize("ending", ["parquet", "json"])
def test_ids_come_back_as_they_were_written(data, codes, tmp_path, ending):
    path = tmp_path / f"ids.{ending}"
    write_ids(path, data.items["item_id"], codes)
    assert np.array_equal(read_ids(path, data), codes)
    imported = ids_config(source="file", ids_file=str(path))
    done = make_tokenized(data, imported, lab_tokenizer_config(uniqueness="none"), 0, tmp_path)
    assert np.array_equal(done.ids.code_ids, codes)
    assert done.ids.sizes == tuple(codes.max(0) + 1)


def test_ids_belong_to_items_and_not_to_places(data, codes, tmp_path):
    order = np.random.default_rng(1).permutation(data.n_items)
    frame = pl.DataFrame({"item_id": data.items["item_id"], "codes": codes[1:].tolist()})[order]
    more = pl.DataFrame({"item_id": ["another"], "codes": [[1, 2, 3]]})
    pl.concat([frame.cast({"item_id": pl.String}), more]).write_parquet(tmp_path / "ids.parquet")
    assert np.array_equal(read_ids(tmp_path / "ids.parquet", data), codes)


def test_the_index_has_the_fields_form(data, codes, tmp_path):
    write_ids(tmp_path / "index.json", data.items["item_id"], codes)
    entries = json.loads((tmp_path / "index.json").read_text())
    first = str(data.items["item_id"][0])
    assert entries[first] == [f"<a_{codes[1, 0]}>", f"<b_{codes[1, 1]}>", f"<c_{codes[1, 2]}>"]


def _index(data, change):
    entries = {str(item): ["<a_1>", "<b_2>"] for item in data.items["item_id"].to_list()}
    change(entries, next(iter(entries)))
    return json.dumps(entries)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries, first: entries.pop(first), "no ID for 1 of 24 items"),
        (lambda entries, first: entries[first].append("<c_0>"), "codes, others"),
        (lambda entries, first: entries.update({first: ["<b_1>", "<a_2>"]}), "in order"),
        (lambda entries, first: entries.update({first: ["1", "2"]}), "in order"),
        (lambda entries, first: entries.update({first: ["<a_1>", "<a_2>"]}), "in order"),
        (lambda entries, first: entries.update({first: [1, 2]}), "others have the positions 'ab'"),
        (lambda entries, first: entries.update({first: "a_1 b_2"}), "in order"),
        (lambda entries, first: entries.update({first: [1.5, 2]}), "at least 0"),
        (lambda entries, first: entries.update({first: [True, 2]}), "in order"),
        (lambda entries, first: entries.update({first: 7}), "expected"),
        (lambda entries, first: entries.update({first: None}), "expected"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(data, tmp_path, change, message):
    (tmp_path / "index.json").write_text(_index(data, change))
    with pytest.raises(ValueError, match=message) as caught:
        read_ids(tmp_path / "index.json", data)
    assert "index.json" in str(caught.value)


def spelt(form, codes):
    """The codes of one item as other code of the field writes them."""
    letters = [chr(97 + place) for place in range(len(codes))]
    tokens = [f"<{letter}_{code}>" for letter, code in zip(letters, codes, strict=True)]
    return {
        "tokens": tokens,
        "upper case": [token.upper() for token in tokens],
        "with a mark": [token.replace("<", "<item_") for token in tokens],
        "from another letter": [
            f"<{chr(ord(letter) + 2)}_{code}>" for letter, code in zip(letters, codes, strict=True)
        ],
        "one text": "".join(tokens),
        "one text with boundaries": f"<|sid_begin|>{''.join(tokens).replace('<', '<s_')}<|sid_end|>",
        "integers": codes,
        "whole floats": [float(code) for code in codes],
    }[form]


FORMS = ["tokens", "upper case", "with a mark", "from another letter", "one text", "one text with boundaries"]


@pytest.mark.parametrize("form", [*FORMS, "integers", "whole floats"])
def test_ids_of_other_code_are_read_unchanged(data, codes, tmp_path, form):
    items = data.items["item_id"].to_list()
    entries = {str(item): spelt(form, row) for item, row in zip(items, codes[1:].tolist(), strict=True)}
    (tmp_path / "INDEX.JSON").write_text(json.dumps(entries))
    assert np.array_equal(read_ids(tmp_path / "INDEX.JSON", data), codes)
    pl.DataFrame({"item_id": items, "codes": list(entries.values())}).write_parquet(tmp_path / "ids.parquet")
    assert np.array_equal(read_ids(tmp_path / "ids.parquet", data), codes)


def test_rows_of_an_array_are_those_of_the_item_table(data, codes, tmp_path):
    order = pl.read_parquet(f"{data.path}/items.parquet")["item_id"]
    assert order.to_list() != data.items["item_id"].to_list(), "so that a wrong order would be found"
    np.save(tmp_path / "codes.npy", codes[data.row_of(order)])
    assert np.array_equal(read_ids(tmp_path / "codes.npy", data), codes)
    np.save(tmp_path / "short.npy", codes[1:-1])
    with pytest.raises(ValueError, match=r"one row of integers for each of the 24 rows of items\.parquet"):
        read_ids(tmp_path / "short.npy", data)
    np.save(tmp_path / "names.npy", np.full((data.n_items, 2), "a"))
    with pytest.raises(ValueError, match="one row of integers"):
        read_ids(tmp_path / "names.npy", data)


def test_an_item_with_two_ids_is_refused_and_items_of_other_data_are_counted(data, codes, tmp_path, capsys):
    write_ids(tmp_path / "ids.json", data.items["item_id"], codes)
    first, text = data.items["item_id"][0], (tmp_path / "ids.json").read_text().rstrip("}\n")
    (tmp_path / "ids.json").write_text(f'{text}, "elsewhere": ["<a_1>", "<b_1>", "<c_1>"]}}')
    assert np.array_equal(read_ids(tmp_path / "ids.json", data), codes)
    assert "1 of 25 items are not in the data and are left out" in capsys.readouterr().err
    (tmp_path / "ids.json").write_text(f'{text}, "{first}": ["<a_1>", "<b_1>", "<c_1>"]}}')
    with pytest.raises(ValueError, match=f"item {first} has two IDs"):
        read_ids(tmp_path / "ids.json", data)


def test_other_files_are_refused(data, codes, tmp_path):
    with pytest.raises(ValueError, match=r"got ids\.csv"):
        write_ids(tmp_path / "ids.csv", data.items["item_id"], codes)
    for name in ("none.json", "none.parquet"):
        with pytest.raises(ValueError, match=name):
            read_ids(tmp_path / name, data)
    pl.DataFrame({"item_id": data.items["item_id"], "codes": [[-1, 2]] * data.n_items}).write_parquet(
        tmp_path / "ids.parquet"
    )
    with pytest.raises(ValueError, match="at least 0"):
        read_ids(tmp_path / "ids.parquet", data)
