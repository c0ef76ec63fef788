"""Full-catalogue evaluation, ours against RecBole's, with equal model sizes and seen items included in the ranking."""

import numpy as np
import torch

from bbqrec_core import (
    EvaluationConfig,
    RecommenderConfig,
    Sequences,
    build_recommender,
    per_user,
    rank_scores,
    rank_users,
)
from bbqrec_core.metrics import concat_ranks
from bbqrec_lab.datasets.synthetic import histories
from bbqrec_lab.measure import Plan, Side, interleave

from . import recbole_side
from .harness import Row, rate_row

METRICS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20")


def evaluate(plan: Plan) -> list[Row]:
    """SASRec scores for 17,000 users over 6,000 items, their ranks and metrics."""
    users, items = plan.size(17_000, 300), plan.size(6_000, 200)
    config, batch = RecommenderConfig(output="items"), EvaluationConfig().batch
    events = histories(users, items, mean=12, longest=config.max_events + 1)
    peer = recbole_side.build(events, items)
    ends = events.offsets[1:] - 1
    kept = np.ones(len(events.items), bool)
    kept[ends] = False
    history = Sequences(events.offsets - np.arange(users + 1), events.items[kept])
    targets = events.items[ends].astype(np.int64)
    recommender = build_recommender(items, None, config, 0)

    def ours() -> dict[str, float]:
        ranks = rank_users(recommender.scores, history, targets, np.arange(users), ("included",), batch)["included"]
        return {name: float(values.mean()) for name, values in per_user(ranks).items()}

    sides = {
        "ours": Side(ours, users),
        "theirs": Side(lambda: peer.trainer.evaluate(peer.test, load_best_model=False), users),
    }
    checked = _same_metrics(peer)
    seconds = interleave(sides, plan)
    work = f"full-catalogue evaluation of {users:,} users, {items:,} items, SASRec of width {config.width}"
    pair, spent = (sides["ours"], sides["theirs"]), (seconds["ours"], seconds["theirs"])
    return [rate_row(work, "RecBole 1.2.1 full-sort evaluation", "users", pair, spent, ">= 3", checked)]


@torch.no_grad()
def _same_metrics(peer: recbole_side.Peer) -> str:
    """Rank the peer's scores with our code and compare the metrics with those of the peer."""
    theirs = peer.trainer.evaluate(peer.test, load_best_model=False)
    parts = []
    for interaction, _, _, positive in peer.test:
        scores = peer.model.full_sort_predict(interaction)
        parts.append(rank_scores(scores, positive))
    ours = {name: float(values.mean()) for name, values in per_user(concat_ranks(parts)).items()}
    gap = max(abs(ours[name] - float(theirs[name])) for name in METRICS)
    if not gap < 1e-6:
        raise ArithmeticError(f"metrics of the same scores differ: ours {ours}, RecBole's {dict(theirs)}")
    return f"for the same scores, six metrics differ by at most {gap:.0e}"
