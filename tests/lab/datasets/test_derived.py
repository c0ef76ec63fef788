"""Changed datasets and drawn items: a hash of their own, and the same draw for the same seed."""

from pathlib import Path

from tiny import PLANTED, planted_data

from bbqrec_core import Sequences
from bbqrec_lab.datasets.derived import derived, drawn_items


def test_a_changed_dataset_has_a_hash_of_its_own(tmp_path: Path) -> None:
    data = planted_data(tmp_path, PLANTED)
    sequences = Sequences(data.sequences.offsets, data.sequences.items)
    hashes = {derived(data, label, sequences=sequences).content_hash for label in ("a", "b", "a")}
    assert len(hashes) == 2
    assert data.content_hash not in hashes


def test_a_share_of_the_items_is_drawn_and_never_the_padding() -> None:
    first, same, other = (drawn_items(50, 0.3, stream) for stream in ((0, 1), (0, 1), (0, 2)))
    assert first.sum() == 15
    assert not first[0]
    assert (first == same).all()
    assert (first != other).any()
    assert drawn_items(50, 1.0, (0, 1)).tolist() == [False] + [True] * 50
