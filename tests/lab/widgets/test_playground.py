"""The playground shows the output of the model for the history that the reader builds."""

import re
from dataclasses import replace

import numpy as np
import pytest
from answering import HISTORY, SIZES, N, tiny_recommender
from tiny import semantic_ids
from toys import toy_data

from bbqrec_lab.analysis import explanations
from bbqrec_lab.widgets import html_cards
from bbqrec_lab.widgets.playground import NONE, Playground, PlaygroundState, Playroom, beam_picture, percent, view

WHOLE = PlaygroundState(tuple(HISTORY), 4, 3)


@pytest.fixture(scope="module")
def room() -> Playroom:
    data = toy_data([[1, 2, 2, 3, 4], [2, 3, 1, 5, 6]], N)
    titles = [f"Film {chr(97 + row % 7)} <{row}>" for row in range(1, N + 1)]
    items = data.items.with_columns(title=np.array(titles), text=None, image=None, categories=None)
    items = html_cards.catalogue(replace(data, items=items), semantic_ids(N, SIZES))
    return Playroom(items, {"this": tiny_recommender(), "that": tiny_recommender(init_from_codebook=False)})


def test_the_search_wants_every_word_and_puts_well_known_items_first(room: Playroom) -> None:
    assert room.find("film c") == [2, 9, 16, 23]
    assert room.find("FILM", most=3) == [2, 1, 3]
    assert room.find("c 29>") == []
    assert room.find("<29>") == [29]


def test_the_view_shows_what_the_beam_found_in_its_order(room: Playroom) -> None:
    shown = view(room, WHOLE)
    part = shown[shown.index("Recommended, best first") : shown.index("<h4>Why")]
    found = explanations.beam_items(room.main, HISTORY, 4)
    assert [int(row) for row in re.findall(r'data-row="(\d+)"', part)] == found
    ranks = explanations.ranking(explanations.all_scores(room.main, [HISTORY], set(HISTORY))[0])
    assert all(f"exact rank {ranks[row]}" in part for row in found)
    assert not set(found) & set(HISTORY)


def test_the_reason_is_what_leaving_an_event_out_costs(room: Playroom) -> None:
    shown, found = view(room, WHOLE), explanations.beam_items(room.main, HISTORY, 4)
    whole, shorter = explanations.without_each(room.main, HISTORY, found)
    for index in range(len(found)):
        event = int(shorter[:, index].argmin())
        words = f"{percent(float(whole[index]))} → {percent(float(shorter[event, index]))}"
        assert (words in shown) == bool(shorter[event, index] < whole[index])
    assert "this is the only event" in view(room, replace(WHOLE, history=(5,)))


def test_events_beyond_what_the_model_reads_keep_their_numbers(room: Playroom) -> None:
    longer = replace(WHOLE, history=(1, 2, *HISTORY))
    shown = view(room, longer)
    assert "the model reads 5 of 7 events" in shown
    events = [int(number) for number in re.findall(r"<td>(\d+) Film[^<]*→", shown)]
    assert events
    assert min(events) > 2


def test_levels_unfold_one_by_one(room: Playroom) -> None:
    first = view(room, replace(WHOLE, depth=1))
    assert "1 of 3 levels" in first
    assert "Show all levels" in first
    assert "Recommended" not in first
    assert first.count("<b>level") == 1
    assert view(room, WHOLE).count("<b>level") == 3


def test_the_picture_has_a_box_a_prefix_and_a_curve_a_child(room: Playroom) -> None:
    depths = explanations.unfold(room.main, HISTORY, 4)
    shown = beam_picture(depths, room.items.sizes, room.items.learned)
    assert shown.count('rx="5"') == sum(len(depth.scores) for depth in depths)
    assert shown.count("<path") == sum(len(depth.scores) for depth in depths[1:])
    assert all(percent(float(score)).replace("<", "&lt;") in shown for depth in depths for score in depth.scores)


def test_signals_off_change_the_answer_and_say_what_stays(room: Playroom) -> None:
    shown = view(room, replace(WHOLE, off=("text", "id")))
    assert "Switched off: text, id" in shown
    assert "text-image" in shown
    assert "The codes do not change" in shown
    assert shown.split("Beam search, width")[1] != view(room, WHOLE).split("Beam search, width")[1]


def test_the_other_run_is_ranked_on_the_same_history(room: Playroom) -> None:
    shown = view(room, replace(WHOLE, against="that"))
    ranks = explanations.ranking(explanations.all_scores(room.runs["that"], [HISTORY], set(HISTORY))[0])
    found = explanations.beam_items(room.main, HISTORY, 4)
    column = [int(cell) for cell in re.findall(r'class="bb-number">(\d+)</td></tr>', shown)]
    assert column == [ranks[row] for row in found]
    part = shown[shown.index("Top 6 of that") :]
    assert [int(row) for row in re.findall(r'data-row="(\d+)"', part)] == explanations.best(ranks, 6)


def test_what_is_not_there_is_said(room: Playroom) -> None:
    with pytest.raises(ValueError, match="no run 'x': the runs are this, that"):
        view(room, replace(WHOLE, against="x"))
    with pytest.raises(ValueError, match="no signal sound"):
        view(room, replace(WHOLE, off=("sound",)))
    with pytest.raises(ValueError, match="beam width and number of levels must be at least 1"):
        PlaygroundState(width=0)
    with pytest.raises(ValueError, match="the first run has no codes"):
        Playroom(room.items, {"this": tiny_recommender(output="items")})
    assert "The history is empty. Search above" in view(room, PlaygroundState())


def test_a_history_of_the_whole_catalogue_leaves_nothing(room: Playroom) -> None:
    assert "The history contains every item." in view(room, replace(WHOLE, history=tuple(range(1, N + 1))))


def test_titles_are_text_and_never_markup(room: Playroom) -> None:
    shown = view(room, replace(WHOLE, against="that"))
    assert "&lt;29&gt;" in shown
    assert "<29>" not in shown


def test_clicks_build_the_history_and_every_control_changes_the_picture(room: Playroom) -> None:
    live = Playground(room)
    assert "The history is empty. Search above" in live.picture.value
    live.search.value = "film c"
    assert [b.description for b in live.hits if b.layout.display != "none"] == [
        f"+ Film c <{row}>" for row in (2, 9, 16, 23)
    ]
    live.hits[1].click()
    live.hits[0].click()
    live.hits[1].click()
    assert live.state.history == (9, 2, 9)
    assert [b.description for b in live.events.children] == ["× 1 Film c <9>", "× 2 Film c <2>", "× 3 Film c <9>"]
    live.events.children[1].click()
    assert live.state.history == (9, 9)
    for change in (
        lambda: setattr(live.controls["width"], "value", 3),
        lambda: setattr(live.controls["depth"], "value", 2),
        lambda: setattr(live.controls["depth"], "value", 3),
        lambda: setattr(live.controls["against"], "value", "that"),
        lambda: setattr(live.signals["image"], "value", False),
        lambda: setattr(live.controls["against"], "value", NONE),
        lambda: live.clear.click(),
    ):
        before = live.picture.value
        change()
        assert live.picture.value != before
        assert live.picture.value == html_cards.page(view(room, live.state))
    assert live.state.off == ("image",)
    assert live.events.children == ()
