"""New items: the ID that the run itself would give them, a place in the tree, and a model that stays as trained."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from served import make_run, vectors_of
from torch import Tensor

from bbqrec_core import Recommender, SemanticIds, Sequences, build_recommender
from bbqrec_lab.baselines.sequence_models import make_model
from bbqrec_lab.datasets import features
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments import runs
from bbqrec_lab.serving import new_items
from bbqrec_lab.serving.live_model import NewItem, extended, extended_ids
from bbqrec_lab.serving.new_items import ContentError, ItemContent, ItemEncoder, Scale, picture_bytes

Run = tuple[NamedDataset, Path, SemanticIds, Recommender, np.ndarray]


def loaded(data: NamedDataset, directory: Path) -> Run:
    seen = np.append(False, pl.read_parquet(directory / "items.parquet")["training_events"].to_numpy() > 0)
    return data, directory, SemanticIds.load(directory / "ids.npz"), runs.load_scorer(directory), seen


@pytest.fixture(scope="module", params=["bbqrec", "generation"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return loaded(*make_run(tmp_path_factory.mktemp("run"), request.param))


@pytest.fixture(scope="module")
def encoder(run: Run) -> ItemEncoder:
    return ItemEncoder(run[1], run[2])


def item_like(run: Run, row: int, name: str = "new") -> ItemContent:
    return ItemContent(name, vectors={name: tuple(v) for name, v in vectors_of(run[0], row).items()})


def scores(model: Recommender, rows: list[int]) -> Tensor:
    asked = Sequences(np.array([0, len(rows)]), np.array(rows, np.int32), np.arange(len(rows)))
    return model.scores(asked, np.array([0]))[0]


def test_a_new_item_gets_the_codes_that_the_run_gave_to_an_unseen_item_of_this_content(
    run: Run, encoder: ItemEncoder
) -> None:
    """Items that were held out of training have no ID signal either. Codes before the repair are compared."""
    unseen = np.flatnonzero(~run[4])[1:]
    assert len(unseen) > 1
    for row in unseen:
        alone = encoder._stage_one(
            {n: encoder.scales[n](np.array(v, np.float32)) for n, v in vectors_of(run[0], row).items()}
        )
        assert (alone[0] == run[2].raw_codes[row]).all()


def test_scales_are_those_of_the_features_that_stage_one_saw() -> None:
    rng = np.random.default_rng(0)
    raw = np.concatenate([rng.normal(3, 2, (11, 3)), rng.integers(0, 2, (11, 2)), np.full((11, 1), 7.0)], 1)
    present = np.arange(11) > 1
    scale, wanted = Scale.of(raw.astype(np.float32), present), features.scale(raw.astype(np.float32), present)
    for row in np.flatnonzero(present):
        assert np.allclose(scale(raw[row].astype(np.float32)), wanted[row], atol=1e-6)


def test_content_is_compared_as_in_training(run: Run, encoder: ItemEncoder) -> None:
    scoring = run[3].model.scoring
    for row in (1, 5, 17):
        rows = scoring.alike[row].long()
        cosine = np.maximum(encoder.catalogue[rows] @ encoder.catalogue[row], 0) ** 3
        assert np.allclose(cosine, scoring.cosines[row], atol=1e-5)


def test_every_new_item_gets_a_free_id_until_its_prefix_is_full(run: Run, encoder: ItemEncoder) -> None:
    ids, added, contents = run[2], [], []
    codes = ids.code_ids
    first = item_like(run, 3)
    for number in range(ids.sizes[-1] + 2):
        item, content = encoder.encode(replace(first, item_id=f"n{number}"), codes, contents)
        full = len(np.unique(codes[1:][(codes[1:, :-1] == item.code[:-1]).all(1), -1])) == ids.sizes[-1]
        assert full == (codes[1:] == item.code).all(1).any(), "an ID is shared only below a full prefix"
        assert (item.code[:-1] == (added[0].code[:-1] if added else item.code[:-1])).all()
        codes, added, contents = np.concatenate([codes, item.code[None]]), [*added, item], [*contents, content]
    assert full


def test_no_new_items_leave_the_model_as_it_is(run: Run) -> None:
    assert extended(run[3], run[2], run[4], []) is run[3]


def test_the_same_new_items_give_the_same_scores_and_old_parameters_stay(run: Run, encoder: ItemEncoder) -> None:
    added, contents, codes = [], [], run[2].code_ids
    for row in (2, 9):
        item, content = encoder.encode(item_like(run, row, f"n{row}"), codes, contents)
        added, contents, codes = [*added, item], [*contents, content], np.concatenate([codes, item.code[None]])
    before = {name: value.clone() for name, value in run[3].model.state_dict().items()}
    one, other = (extended(run[3], run[2], run[4], added) for _ in range(2))
    history = [4, 8, 4, 15, len(codes) - 1]
    assert torch.equal(scores(one, history), scores(other, history))
    assert torch.isfinite(scores(one, history)[1:]).all()
    assert all(torch.equal(before[name], value) for name, value in run[3].model.state_dict().items())
    if one.model.items is not None:
        assert torch.equal(one.model.item_embeddings()[: len(run[2].code_ids)], run[3].model.item_embeddings())


def test_the_model_is_the_one_that_the_whole_catalogue_would_have(run: Run, encoder: ItemEncoder) -> None:
    """Against a model that is built as for training, with all pairs of items compared, and given the same tables."""
    item, _ = encoder.encode(item_like(run, 6), run[2].code_ids, [])
    quick, ids = extended(run[3], run[2], run[4], [item]), extended_ids(run[2], [item])
    state = quick.model.state_dict()
    make = lambda *given: make_model(*given, features=state.get("features"))  # noqa: E731
    whole = build_recommender(len(ids.code_ids) - 1, ids, run[3].model.config, 0, np.append(run[4], False), make)
    whole.model.load_state_dict(state)
    new = len(ids.code_ids) - 1
    for history in ([3, 4, 5], [new], [7, new, 2, 2]):
        assert torch.allclose(scores(quick, history), scores(whole, history), atol=1e-5)


def test_known_prefixes_keep_their_vectors_and_new_ones_have_none(run: Run, encoder: ItemEncoder) -> None:
    codes = run[2].code_ids
    found = (
        encoder.encode(item_like(run, row), codes, [])[0] for row in range(1, len(codes)) if run[2].present[row, 0]
    )
    item = next(item for item in found if not (codes[1:] == item.code).all(1).any())  # its prefix is not full
    old, new = run[3].model.vectors, extended(run[3], run[2], run[4], [item]).model.vectors
    rows = torch.arange(1, len(run[2].code_ids))
    for depth in range(len(old)):
        assert torch.equal(old(depth, old.node[rows, depth]), new(depth, new.node[rows, depth]))
    last = new.node[-1, -1]
    assert torch.equal(new(len(new) - 1, last), new.codes[-1].weight[int(item.code[-1])])


def test_a_new_item_is_like_what_its_content_is_like(run: Run, encoder: ItemEncoder) -> None:
    """In score reweighting: an item with the content of row 6 enters the lists that row 6 is in, and lists row 6."""
    item, _ = encoder.encode(item_like(run, 6), run[2].code_ids, [])
    scoring = extended(run[3], run[2], run[4], [item]).model.scoring
    new = len(run[2].code_ids)
    assert 6 in scoring.alike[new, scoring.cosines[new].topk(1).indices].tolist()
    assert new in scoring.alike[6].tolist()
    assert float(scoring.cosines[6][scoring.alike[6] == new]) == pytest.approx(1, abs=1e-4)
    assert not scoring.counts[new].any()
    wanted = dict(zip(run[3].model.scoring.alike[6].tolist(), run[3].model.scoring.cosines[6].tolist(), strict=True))
    found = dict(zip(scoring.alike[new].tolist(), scoring.cosines[new].tolist(), strict=True))
    common = (wanted.keys() & found.keys()) - {0, 6}
    assert len(common) >= len(wanted) - 2
    assert all(found[row] == pytest.approx(wanted[row], abs=1e-4) for row in common)


def test_histories_read_code_by_code_take_no_new_items(tmp_path: Path) -> None:
    _, directory, ids, model, seen = loaded(*make_run(tmp_path, "generation", r_granularity="code"))
    with pytest.raises(ValueError, match="code by code"):
        ItemEncoder(directory, ids)
    one = ids.code_ids[1], ids.raw_codes[1], ids.signal_codes[1], ids.signal_vectors[1], ids.present[1]
    item = NewItem(*one, np.zeros(0, np.float32))
    with pytest.raises(ValueError, match="code by code"):
        extended(model, ids, seen, [item])


@pytest.mark.parametrize(("variant", "why"), [("sasrec", "no semantic IDs"), ("random-ids", "were not learned")])
def test_runs_without_learned_ids_say_why_they_take_no_new_items(tmp_path: Path, variant: str, why: str) -> None:
    _, directory = make_run(tmp_path, variant)
    with pytest.raises(ValueError, match=f"{why}.*take a run of variant bbqrec"):
        ItemEncoder(directory, None)


def test_other_ids_than_those_of_the_run_are_refused(tmp_path: Path) -> None:
    _, directory, ids, _, _ = loaded(*make_run(tmp_path))
    changed = replace(ids, raw_codes=(ids.raw_codes + 1) % ids.sizes[0])
    with pytest.raises(ValueError, match="gives other IDs than those of the run"):
        ItemEncoder(directory, changed)
    assert ItemEncoder(directory, ids).modalities


def test_changed_data_are_refused(tmp_path: Path) -> None:
    data, directory, ids, _, _ = loaded(*make_run(tmp_path))
    path = Path(data.path) / "interactions.parquet"
    pl.read_parquet(path)[:-1].write_parquet(path)
    with pytest.raises(ValueError, match="have changed since this run"):
        ItemEncoder(directory, ids)
    path.parent.rename(path.parent.with_name("elsewhere"))
    with pytest.raises(ValueError, match="no longer at"):
        ItemEncoder(directory, ids)


@pytest.mark.parametrize(
    ("vectors", "why"),
    [
        ({}, "nothing to encode item 'x' by: give at least one of"),
        ({"sound": (1.0,)}, "no modality 'sound': choose from image, text"),
        ({"text": (1.0, 2.0)}, "vectors.text has 2 numbers: give"),
        ({"text": (float("nan"),) * 12}, "finite numbers"),
    ],
)
def test_content_that_cannot_be_encoded_is_told(run: Run, encoder: ItemEncoder, vectors: dict, why: str) -> None:
    with pytest.raises(ContentError, match=why.replace(".", r"\.")):
        encoder.encode(ItemContent("x", title="A title", vectors=vectors), run[2].code_ids, [])


def picture(size: tuple[int, int], kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def test_pictures_are_checked_before_they_are_decoded() -> None:
    assert picture_bytes(picture((5, 4)))[:4] == b"\x89PNG"
    for given, why in (
        ("***", "not in base64"),
        (base64.b64encode(b"no picture").decode(), "no picture that can be read"),
        (picture((new_items.MOST_SIDE + 1, 1)), f"has {new_items.MOST_SIDE + 1} x 1 pixels"),
        (picture((9000, 9000)), "9000 x 9000, more than 50000000 pixels"),
        (picture((4, 4), "PPM"), "no picture that can be read"),
    ):
        with pytest.raises(ContentError, match=why):
            picture_bytes(given)


def test_texts_and_pictures_are_encoded_as_the_catalogue_was(cache: Path, tmp_path: Path) -> None:
    """One at a time, with a model that is kept, against the batches of `features`."""
    files = features.fetch_encoders(cache)
    text = "A space opera about rebels"
    wanted = features.encode_texts([text, "another one"], files["text"])[0]
    assert np.allclose(new_items._sentence_encoder()(text), wanted, atol=1e-5)
    (tmp_path / "x.png").write_bytes(base64.b64decode(picture((40, 30))))
    found = new_items._picture_encoder()(picture((40, 30)))
    assert np.allclose(found, features.encode_pictures([str(tmp_path / "x.png")], files["image"])[0], atol=1e-4)
