"""Small ranking models of one event: an MLP and a factorization machine over bags of item vectors, and plain means."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from bbqrec_lab.without_sequence.code_tables import ItemInput
from bbqrec_lab.without_sequence.ratings import TEST, TRAIN, VALID, Known, Rated

MODELS = ("MLP", "FM")
WIDTH, HIDDEN = 16, 32  # of an item's vector, and of the MLP
BATCHES, BATCH, RATE, DECAY = 20, 1024, 0.01, 1e-5  # at least so many batches per epoch, each of at most `BATCH` events
EPOCHS = {"smoke": 2, "quick": 4, "full": 20}  # the best on validation counts
PENALTIES = (0.03, 0.3, 3.0)  # inverse, of the logistic regression


class Examples(NamedTuple):
    """Events as tensors: `item` (E,), `liked` and `disliked` (E, H) rows, `facts` (E, 2) of the user, `answer` (E,)."""

    item: Tensor
    liked: Tensor
    disliked: Tensor
    facts: Tensor
    answer: Tensor

    def select(self, rows: Int[Tensor, "B"]) -> "Examples":
        """Some of the events."""
        return Examples(*(field[rows] for field in self))


def make_examples(rated: Rated, known: Known) -> Examples:
    """All events; the facts are the rate of the user and log(1 + events), which every model may read."""
    facts = np.stack([known.user_rate, np.log1p(known.user_events)], 1)
    item, liked, disliked = (torch.from_numpy(x.astype(np.int64)) for x in (rated.item, known.liked, known.disliked))
    answer = torch.from_numpy(rated.liked.astype(np.float32))
    return Examples(item, liked, disliked, torch.from_numpy(facts.astype(np.float32)), answer)


class ItemVectors(nn.Module):
    """A vector and a weight of every item: the mean of its tokens' rows of one table, or a linear map of its vector."""

    def __init__(self, given: ItemInput) -> None:
        super().__init__()
        self.table = self.map = None
        if given.tokens is not None:
            self.table = nn.EmbeddingBag(given.rows + 1, WIDTH + 1, mode="mean", padding_idx=0)
            nn.init.normal_(self.table.weight, std=0.05)
            self.register_buffer("tokens", torch.from_numpy(given.tokens))
        else:
            self.map = nn.Linear(given.vectors.shape[1], WIDTH + 1)
            scale = np.sqrt((given.vectors**2).sum(1).mean()) or 1.0
            self.register_buffer("vectors", torch.from_numpy(given.vectors / np.float32(scale)))

    def forward(self) -> Float[Tensor, "rows W"]:
        """Vectors of all item rows (N+1, WIDTH + 1); the last column is the weight; row 0 is zero."""
        found = self.table(self.tokens) if self.map is None else self.map(self.vectors)
        return found * (torch.arange(len(found)) > 0)[:, None]

    def learned_bytes(self) -> int:
        """Size of the table or of the map in float32."""
        return 4 * sum(value.numel() for value in self.parameters())


class RankingModel(nn.Module):
    """The logit of `liked` from an item, the items that the user liked and disliked before, and facts of the user.

        MLP: f([c, l, d, c * l, c * d, facts]) + w_c
        FM:  a . facts + w_c + w_l + w_d + c.l' + c.d' + l'.d',   l' = s_l * l,  d' = s_d * d

    c is the vector of the item, l and d are means of the vectors of liked and disliked items, w their weights.

    Args: given: what is read of items; one table serves all three, so its size is the size of the model.
        kind: one of `MODELS`.
    Source: Rendle 2010 for the factorization machine. Choice: fields share one table, with a scale of their own.
    """

    def __init__(self, given: ItemInput, kind: str) -> None:
        super().__init__()
        self.items, self.kind = ItemVectors(given), kind
        if kind == "MLP":
            self.deep = nn.Sequential(nn.Linear(5 * WIDTH + 2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        else:
            self.scales = nn.Parameter(torch.ones(2, WIDTH))
            self.weights = nn.Parameter(torch.zeros(2))
        self.facts = nn.Linear(2, 1)

    def forward(self, some: Examples) -> Float[Tensor, "B"]:
        """Logits."""
        table = self.items()
        item = F.embedding(some.item, table)
        liked, disliked = (F.embedding_bag(rows, table, mode="mean", padding_idx=0) for rows in some[1:3])
        c, l, d = (part[:, :-1] for part in (item, liked, disliked))  # noqa: E741 - the letters of the formula
        logit = self.facts(some.facts)[:, 0] + item[:, -1]
        if self.kind == "MLP":
            return logit + self.deep(torch.cat([c, l, d, c * l, c * d, some.facts], 1))[:, 0]
        l, d = l * self.scales[0], d * self.scales[1]  # noqa: E741
        pairs = (c * l + c * d + l * d).sum(1)
        return logit + pairs + self.weights[0] * liked[:, -1] + self.weights[1] * disliked[:, -1]


class Fitted(NamedTuple):
    """Probabilities of `liked` for the test events, in the order of `Rated`, and the bytes of the learned table."""

    chance: Float[np.ndarray, "test"]
    learned: int


def fit_ranking(
    given: ItemInput, kind: str, examples: Examples, part: Int[np.ndarray, "E"], preset: str, seed: int
) -> Fitted:
    """Train one ranking model; the epoch with the least validation log-loss counts."""
    rows = [torch.from_numpy(np.flatnonzero(part == which)) for which in (TRAIN, VALID, TEST)]
    size = max(min(len(rows[0]) // BATCHES, BATCH), 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RankingModel(given, kind)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
        best, chance = np.inf, np.full(len(rows[2]), 0.5)
        for _ in range(EPOCHS[preset]):
            for some in rows[0][torch.randperm(len(rows[0]))].split(size):
                batch = examples.select(some)
                loss = F.binary_cross_entropy_with_logits(model(batch), batch.answer)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.inference_mode():
                valid, test = (examples.select(which) for which in rows[1:])
                loss = float(F.binary_cross_entropy_with_logits(model(valid), valid.answer))
                if loss < best:
                    best, chance = loss, model(test).sigmoid().double().numpy()
    return Fitted(chance, model.items.learned_bytes())


def fit_means(rated: Rated, known: Known) -> Float[np.ndarray, "test"]:
    """The strong simple rival: a logistic regression on the rates of user and item and on how many events each has.

    It has products of each rate with its number of events, since a rate of few events says little. The penalty is
    chosen on validation. Returns: probabilities of `liked` for the test events.
    """
    user, item = np.log1p(known.user_events), np.log1p(known.item_events)
    columns = (known.user_rate, known.item_rate, user, item, known.user_rate * user, known.item_rate * item)
    x, y = np.stack(columns, 1), rated.liked
    train, valid, test = (rated.part == which for which in (TRAIN, VALID, TEST))
    mean, deviation = x[train].mean(0), x[train].std(0) + 1e-9
    x = (x - mean) / deviation
    tried = []
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, max_iter=1000).fit(x[train], y[train])
        tried.append((log_losses(model.predict_proba(x[valid])[:, 1], y[valid]).mean(), penalty, model))
    model = min(tried, key=lambda found: found[:2])[2]
    return model.predict_proba(x[test])[:, 1]


def log_losses(chance: Float[np.ndarray, "E"], liked: Bool[np.ndarray, "E"]) -> Float[np.ndarray, "E"]:
    """Minus the log of the probability of what happened, per event, in nats."""
    chance = np.clip(chance, 1e-7, 1 - 1e-7)
    return -np.log(np.where(liked, chance, 1 - chance))


def area(chance: Float[np.ndarray, "E"], liked: Bool[np.ndarray, "E"]) -> float:
    """AUC: the chance that a liked event has a higher score than another one, ties count half; NaN without a pair."""
    pairs = int(liked.sum()) * int((~liked).sum())
    if not pairs:
        return float("nan")
    values, place = np.unique(chance, return_inverse=True)
    mine, other = (np.bincount(place[chosen], minlength=len(values)) for chosen in (liked, ~liked))
    below = np.cumsum(other) - other
    return float((mine * (below + other / 2)).sum() / pairs)
