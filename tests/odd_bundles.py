"""Small valid bundles at the edge of what a shop can look like: each is good for `bbqrec data check`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

Rows = list[tuple[int, int, int]]  # user, item, time


def walks(users: int, items: int, length: int, groups: int = 3) -> Rows:
    """Users who mostly stay in one group of items."""
    rng, rows = np.random.default_rng(0), []
    for user in range(users):
        group = int(rng.integers(min(groups, items)))
        for step in range(length):
            of_group = np.arange(group, items, groups)
            item = int(rng.choice(of_group)) if rng.random() < 0.8 else int(rng.integers(items))
            rows.append((user, item, 1_600_000_000 + 86_400 * step + user))
    return rows


def vectors(items: int, width: int, seed: int = 0) -> np.ndarray:
    """Features of items in three groups, with noise."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(3, width))[np.arange(items) % 3] + 0.3 * rng.normal(size=(items, width))).astype("f4")


def write(root: Path, rows: Rows, items: int, features: dict[str, np.ndarray]) -> Path:
    """A bundle of these events and features. Only items with text features have titles: others would be encoded."""
    (root / "features").mkdir(parents=True, exist_ok=True)
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_parquet(root / "interactions.parquet")
    table = pl.DataFrame({"item_id": range(items), "title": [f"Thing {item}" for item in range(items)]})
    (table if "text" in features else table.drop("title")).write_parquet(root / "items.parquet")
    for name, array in features.items():
        np.save(root / "features" / f"{name}.npy", array)
    return root


def one_item(root: Path) -> Path:
    """A shop with one item, which everybody buys again."""
    return write(root, walks(8, 1, 5), 1, {"text": vectors(1, 5)})


def two_items(root: Path) -> Path:
    """A shop with two items."""
    return write(root, walks(9, 2, 5), 2, {"text": vectors(2, 5)})


def twelve_items(root: Path) -> Path:
    """Fewer items than codes of a level."""
    return write(root, walks(30, 12, 8), 12, {"text": vectors(12, 16), "image": vectors(12, 24, 1)})


def one_number(root: Path) -> Path:
    """One number per item, its price, is the only feature."""
    price = np.random.default_rng(0).lognormal(3, 1, (40, 1)).astype(np.float32)
    return write(root, walks(60, 40, 12), 40, {"price": price})


def all_seen(root: Path) -> Path:
    """Every user has had every item: nothing is left to recommend if seen items are filtered."""
    rng = np.random.default_rng(0)
    each = [np.concatenate([rng.permutation(6), rng.integers(0, 6, 9)]) for _ in range(40)]
    rows = [(user, int(item), 1000 + 10 * step) for user, items in enumerate(each) for step, item in enumerate(items)]
    return write(root, rows, 6, {"text": vectors(6, 16)})


def equal_popularity(root: Path) -> Path:
    """Every item has the same number of events, also in training."""
    rows = [(user, (user + step) % 30, 1000 + 10 * step) for user in range(30) for step in range(7)]
    return write(root, rows, 30, {"text": vectors(30, 16)})


def no_shared_user(root: Path, users: int = 60) -> Path:
    """A wide catalogue: no two users share an item, and every user has four different ones."""
    rows = [(user, 4 * user + step, 1000 + step) for user in range(users) for step in range(4)]
    return write(root, rows, 5 * users, {"text": vectors(5 * users, 16)})


def same_features(root: Path) -> Path:
    """Features that do not differ between items."""
    return write(root, walks(40, 20, 8), 20, {"text": np.ones((20, 8), np.float32)})


def no_features(root: Path) -> Path:
    """Neither features nor texts nor pictures."""
    return write(root, walks(40, 20, 8), 20, {})


def one_user(root: Path) -> Path:
    """A single history."""
    return write(root, walks(1, 12, 14), 12, {"text": vectors(12, 16)})


def one_known(root: Path) -> Path:
    """Only one item has the feature."""
    some = np.zeros((20, 8), np.float32)
    some[3] = 1
    return write(root, walks(40, 20, 8), 20, {"text": some})


def dotted_name(root: Path) -> Path:
    """Feature files that keep the names that their scripts gave them, or that a module of torch has as a method."""
    return write(root, walks(40, 20, 8), 20, {"shop.emb-llama td": vectors(20, 16), "values": vectors(20, 4, 1)})


BUNDLES: dict[str, Callable[[Path], Path]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(one_item, two_items, twelve_items, one_number, all_seen, equal_popularity, no_shared_user, same_features),
        *(no_features, one_user, one_known, dotted_name),
    )
}
