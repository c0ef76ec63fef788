"""Work that grows with users times items: counting baselines with sparse scores against a score per user and item."""

import numpy as np

from bbqrec_core import Dataset, Ranks, rank_users
from bbqrec_lab.baselines.counting import ItemKnn, Markov, Popularity, SparseBaseline
from bbqrec_lab.datasets.synthetic import histories
from bbqrec_lab.measure import Plan, timed

from .harness import Row, gain_row

SAMPLE = 100  # users that the other side ranks: all of them would take most of an hour
KINDS = {"popularity": Popularity, "markov": Markov, "item-knn": ItemKnn}


def counting(plan: Plan) -> list[Row]:
    """Rows of 200,000 users, 2 million events and 300,000 items: tuning on validation, and ranks in both modes.

    Measured once: our side takes minutes. The other side ranks a sample of users, and is not tuned.
    """
    users, items = plan.size(200_000, 300), plan.size(300_000, 500)
    events = histories(users, items, mean=10, longest=50)
    data = Dataset(n_items=items, sequences=events)
    return [_row(name, data, plan) for name in KINDS]


def _row(name: str, data: Dataset, plan: Plan) -> Row:
    asked, some = (data.history("test"), data.targets("test")), np.arange(min(SAMPLE, data.n_users))
    start = plan.now()
    model: SparseBaseline = KINDS[name].fit(data)
    model.ranks(*asked, np.arange(data.n_users))
    ours = plan.now() - start
    theirs = timed(lambda: rank_users(model.scores, *asked, some), plan) * data.n_users / len(some)
    checked = _same(model.ranks(*asked, some), rank_users(model.scores, *asked, some))
    work = f"{name}: tuning, and ranks of {data.n_users:,} users over {data.n_items:,} items in both modes"
    peer = f"a score per user and item (untuned, {len(some)} users, extrapolated)"
    return gain_row(work, peer, "s", np.array([ours]), np.array([theirs]), "ours <= 120", checked)


def _same(ours: dict[str, Ranks], theirs: dict[str, Ranks]) -> str:
    """What both sides agree on; ArithmeticError if a rank, a tie or a place of a list differs."""
    for mode, ranks in ours.items():
        for name, one, other in zip(Ranks._fields, ranks, theirs[mode], strict=True):
            if not np.array_equal(one, other):
                raise ArithmeticError(f"{name} differ with seen items {mode}")
    return "equal ranks, ties and lists"
