"""The attention explorer: its view shows the numbers of the model, and every control changes the view."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from answering import HISTORY, SIZES, N, maps_of, scores_of, tiny_recommender
from tiny import semantic_ids
from toys import toy_data

from bbqrec_lab.analysis import explanations
from bbqrec_lab.widgets import attention_explorer, html_cards
from bbqrec_lab.widgets.attention_explorer import AttentionExplorer, ExplorerState, Subject, look, view

SEQUENCES = [[*HISTORY, 4, 9], [1, 2, 3, 4, 5, 6, 8, 9, 10], [8, 9, 10, 12]]


@pytest.fixture(scope="module")
def which() -> Subject:
    data = toy_data(SEQUENCES, N)
    data = replace(data, items=data.items.with_columns(title=None, text=None, image=None, categories=None))
    items = html_cards.catalogue(data, semantic_ids(N, SIZES))
    return attention_explorer.subject(items, tiny_recommender(), data)


def test_before_and_after_are_the_models_attention(which: Subject) -> None:
    state, plain, rows = ExplorerState("1", 4, 2, 3), tiny_recommender(), SEQUENCES[1][4:8]
    seen = look(which, state)
    assert seen.rows == rows
    assert torch.equal(seen.after, maps_of(which.recommender, rows)[1, 2])
    plain.model.reweighting = None
    assert torch.equal(seen.before, maps_of(plain, rows)[1, 2])
    assert np.array_equal(seen.ranks, seen.trained)


def test_ranks_are_those_of_the_scaled_model_without_the_users_items(which: Subject) -> None:
    seen = look(which, ExplorerState("0", 3, scale=2.0))
    model, known = explanations.rescaled(which.recommender, 2.0), SEQUENCES[0][:-1]
    for found, each in ((seen.ranks, model), (seen.trained, which.recommender)):
        scores = scores_of(each, known[-3:]).clone()
        scores[known] = -torch.inf
        assert np.array_equal(found, explanations.ranking(scores))
    assert not np.array_equal(seen.ranks, seen.trained)


def test_the_view_writes_weights_ranks_and_the_change_of_ranks(which: Subject) -> None:
    state = ExplorerState("0", 4, 1, 2, scale=2.0)
    seen, shown = look(which, state), view(which, state)
    assert shown.count('<table class="bb-heat">') == 3
    assert shown.count(" attends to ") == 2 * (2 + 3 + 4)
    assert f">{100 * seen.after[3, 1]:.0f}</td>" in shown
    best = explanations.best(seen.ranks, 1)[0]
    then = seen.trained[best]
    assert (f"rank {then} → 1 ▲" if then > 1 else "rank 1 (same)") in shown
    assert "The true next item of this user, item 9" in shown
    assert (
        shown.count("(same)") < view(which, replace(state, scale=1.0)).count("(same)") == attention_explorer.SHOWN + 1
    )


@pytest.mark.parametrize("output", ["codes", "both"])
def test_each_recommendation_has_its_score_offset_if_the_model_has_score_reweighting(
    which: Subject, output: str
) -> None:
    model = tiny_recommender(score_reweight=True, output=output)
    told, state = Subject(which.items, model, which.users, which.history, which.targets), ExplorerState("1", 4, scale=2)
    shown, seen = view(told, state), look(told, state)
    with torch.no_grad():
        offsets = model.model.scoring.offsets(torch.tensor([seen.rows]))[0][0]
    best = explanations.best(seen.ranks, attention_explorer.SHOWN)
    assert re.findall(r"<br>offset (\S+?)</div>", shown) == [f"{offsets[row]:+.2f}" for row in best]
    assert len({round(float(offsets[row]), 2) for row in best}) > 1
    assert "<br>offset" in view(told, replace(state, scale=0))
    assert "score reweighting" not in view(which, state)


def test_both_attention_maps_share_one_colour_scale(which: Subject) -> None:
    seen, shown = look(which, ExplorerState("0", 4, scale=2.0)), view(which, ExplorerState("0", 4, scale=2.0))
    top = max(float(seen.before[1:].max()), float(seen.after[1:].max()))
    brightest = html_cards.code_colour(255, 256)[0]
    assert f"</span>{100 * top:.0f}." in shown
    heat = shown[shown.index("before: offset scale") : shown.index("least similar")]
    assert heat.count(f"background:{brightest}") == sum(
        round(255 * w / top) == 255 for m in (seen.before, seen.after) for w in m[1:].tril(1).flatten().tolist()
    )


def test_the_third_table_holds_the_models_buckets(which: Subject) -> None:
    shown = view(which, ExplorerState("1", 4, channel="text-image"))
    rule, rows = which.recommender.model.reweighting, torch.tensor([SEQUENCES[1][4:8]])
    names = [channel.name for channel in rule.channels]
    bucket = rule.bucket_ids(rows)[names.index("text-image"), 0]
    table = shown[shown.index("text-image: bucket") :]
    found = re.findall(r"<td[^>]*>([^<]*)</td>", table[: table.index("</table>")])
    wanted = [("=", "–")[b - 4] if b >= 4 else str(b) for i in range(1, 4) for b in bucket[i, : i + 1].tolist()]
    assert found == wanted


def test_the_linear_form_shows_cosines(which: Subject) -> None:
    linear = Subject(which.items, tiny_recommender(similarity_form="linear"), which.users, which.history, which.targets)
    assert "text-text: cosine" in view(linear, ExplorerState("1", 4))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"user": "x"}, "no user 'x': there are 3"), ({"layer": 9}, "no layer 9"), ({"head": 0}, "no layer 1, head 0")],
)
def test_what_is_not_there_is_said(which: Subject, change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        view(which, replace(ExplorerState("0"), **change))


def test_a_scale_out_of_range_and_a_model_without_offsets_are_refused(which: Subject) -> None:
    with pytest.raises(ValueError, match="scale from 0 to 2"):
        ExplorerState("0", scale=2.1)
    with pytest.raises(ValueError, match="this model has no offsets"):
        Subject(which.items, tiny_recommender(reweight=False), which.users, which.history, which.targets)


def test_every_control_changes_the_picture(which: Subject) -> None:
    live = AttentionExplorer(which, ExplorerState("0", 4))
    changes = {"user": "1", "events": 3, "layer": 2, "head": 3, "channel": "id-id", "scale": 0.3}
    assert set(changes) == set(live.controls)
    for name, value in changes.items():
        before = live.picture.value
        live.controls[name].value = value
        assert live.picture.value != before
        assert live.picture.value == html_cards.page(view(which, live.state))
        assert getattr(live.state, name) == value


def test_buttons_walk_round_the_users_and_an_unknown_one_is_said_in_words(which: Subject) -> None:
    live = AttentionExplorer(which)
    live.earlier.click()
    assert live.controls["user"].value == "2"
    live.later.click()
    assert live.controls["user"].value == "0"
    live.controls["user"].value = "nobody"
    assert "no user &#x27;nobody&#x27;" in live.picture.value
    live.later.click()
    assert live.picture.value == html_cards.page(view(which, live.state))
