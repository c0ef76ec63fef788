"""Planted data: a small multi-modal dataset with known behaviour and nuisance factors.

Each item belongs to a leaf of a tree. A user walks over the leaves in one of a few hidden *moods*: mood m moves m + 1
branches around the top level of the tree and permutes the lower digits of the path. So one item shows where the user
is, but only several items show where the user goes. The appearance of an item also depends on nuisance factors, one
per modality, which the walk ignores.

With `drift`, the world changes at one moment: some leaves appear, some die, and on some the users change their mind.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from bbqrec_lab.datasets import planted_rendering
from bbqrec_lab.datasets.reading import NamedDataset

FOLLOW, SIBLING, JUMP = 0.8, 0.12, 0.08  # chances: the next leaf of the mood, a leaf below its parent, any leaf
KEEP_MOOD = 0.97  # chance to keep the mood at a step; otherwise a mood is drawn uniformly
SHORTEST = 5  # events of the shortest history
FATES = ("stays", "appears", "dies", "changes")  # of a leaf at the moment of the drift
BEGIN = 1_600_000_000  # Unix seconds: no event is earlier
SPAN = 100 * 86_400  # seconds of the whole time with a drift; users are there all the time
FEATURE_NOISE = 0.3  # norm of an item's own noise in direct features; behaviour and nuisance together have norm 1


@dataclass(frozen=True)
class PlantedConfig:
    """Parameters of the planted dataset.

    Args:
        users: number of users, at least 1.
        items: number of items N, at least two per leaf.
        branching: children per node on each level of the behaviour tree: 1 to 3 levels, at most (8, 4, 3).
        moods: number of hidden moods, 1 to branching[0] - 1.
        length: mean events per user, at least 6; the shortest history has 5.
        noise: share of events that ignore the walk and follow popularity only, in [0, 1].
        nuisances: number of values of each modality's nuisance factor, 2 to 6.
        text_signal, image_signal: energy of behaviour over energy of nuisance, > 0. Exact for direct features; in
            rendered items it is the ratio of behaviour words to nuisance words and of shape area to background area.
        missing: share of items without text, and, independently, without image, in [0, 1).
        drift: moment at which the world changes, as a share of the whole time in [0, 1); 0 is never. A sixth of the
            leaves (at least one each) appears then: their items have no event before it. Another sixth dies: their
            items have no event after it. On a third sixth users change their mind: they go on to another branch.
        features: "rendered" (texts and pictures, for encoders) or "direct" (also features/*.npy, no encoder needed).
        seed: of all random draws.
    Raises: ValueError naming the field and the value received.
    """

    users: int = 600
    items: int = 300
    branching: tuple[int, ...] = (4, 3, 2)
    moods: int = 3
    length: int = 20
    noise: float = 0.1
    nuisances: int = 6
    text_signal: float = 1.0
    image_signal: float = 1.0
    missing: float = 0.1
    drift: float = 0.0
    features: str = "rendered"
    seed: int = 0

    def __post_init__(self) -> None:
        limits = planted_rendering.WIDEST
        if not 1 <= len(self.branching) <= len(limits) or any(
            not 1 <= width <= limit for width, limit in zip(self.branching, limits, strict=False)
        ):
            raise ValueError(f"branching must have 1 to {len(limits)} levels within {limits}, got {self.branching}")
        bounds = {
            "users": (1, 10**7),
            "items": (2 * self.leaves, 10**6),
            "moods": (1, max(1, self.branching[0] - 1)),
            "length": (SHORTEST + 1, self.items),
            "noise": (0, 1),
            "nuisances": (2, len(planted_rendering.NUISANCE_WORDS)),
            "text_signal": (1e-6, 1e6),
            "image_signal": (1e-6, 1e6),
            "missing": (0, 0.99),
            "drift": (0, 0.99),
        }
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie between {low} and {high}, got {getattr(self, name)}")
        if self.drift and self.leaves < len(FATES):
            raise ValueError(f"drift needs at least {len(FATES)} leaves, got branching={self.branching}")
        if self.features not in ("rendered", "direct"):
            raise ValueError(f"features must be 'rendered' or 'direct', got {self.features!r}")

    @property
    def leaves(self) -> int:
        """Number of leaves of the behaviour tree."""
        return int(np.prod(self.branching))

    @property
    def moment(self) -> int:
        """When the drift happens, in Unix seconds."""
        return BEGIN + round(self.drift * SPAN)


def write_planted(path: str | Path, config: PlantedConfig) -> Path:
    """Write the bundle and its known truth into the new folder `path`.

    The truth is `truth.parquet` (one row per item: path in the tree, leaf, nuisance of each modality, popularity
    weight; with a drift its fate, an index of `FATES`) and `truth.json` (the configuration and the leaf-to-leaf map of
    every mood; with a drift also the moment and the maps after it).

    Returns: `path`.
    Raises: ValueError if `path` exists and is not empty.
    """
    path = Path(path)
    if path.exists() and any(path.iterdir()):
        raise ValueError(f"{path} is not empty; give a new folder")
    path.mkdir(parents=True, exist_ok=True)
    truth, maps = _draw_truth(config)
    items = _draw_items(path, config, truth)
    _draw_interactions(config, truth, maps).write_parquet(path / "interactions.parquet")
    items.write_parquet(path / "items.parquet")
    truth.write_parquet(path / "truth.parquet")
    note = {"config": asdict(config), "next_leaf": maps.tolist()}
    if config.drift:
        note |= {"moment": config.moment, "next_leaf_after": _changed(config, maps).tolist()}
    (path / "truth.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return path


def load_truth(path: str | Path, data: NamedDataset) -> dict[str, Int[np.ndarray, "rows"]]:
    """Return each known factor per item row of `data`; row 0, the padding, is -1.

    Keys: `level_1` ... (digit of the path in the tree), `leaf`, `text_nuisance`, `image_nuisance`.
    Raises: ValueError if `path` has no truth or its truth lacks an item of `data`.
    """
    truth = _truth_of(path, data).drop("item_id", "weight")
    return {name: np.concatenate([[-1], truth[name].to_numpy()]).astype(np.int64) for name in truth.columns}


def oracle_scores(path: str | Path, data: NamedDataset, part: str) -> Float[np.ndarray, "U rows"]:
    """Return the true probability of each user's next item given the history; no model can rank better on average.

    The hidden state is (mood, leaf). The forward recursion (Rabiner 1989) filters the belief over it along the history.
    Items of the history have probability 0, because planted users never repeat an item.

    Args: part: "valid" or "test", as in `Dataset.history`.
    Returns: probabilities; each row sums to 1, column 0 is 0.
    Raises: ValueError if `path` has no truth for `data`, or if it has a drift.
    """
    truth = _truth_of(path, data)
    note = json.loads((Path(path) / "truth.json").read_text(encoding="utf-8"))
    config = PlantedConfig(**{**note["config"], "branching": tuple(note["config"]["branching"])})
    if config.drift:
        raise ValueError(f"the oracle knows one world, and that of {path} changes: choose planted data without drift")
    step = _transitions(config, np.array(note["next_leaf"]))
    leaf, weight = truth["leaf"].to_numpy(), truth["weight"].to_numpy()
    history = data.history(part)
    lengths = np.diff(history.offsets)
    belief = np.full((len(lengths), len(step)), 1 / len(step))
    unseen = np.ones((len(lengths), len(leaf)), dtype=bool)
    for t in range(lengths.max(initial=0)):
        users = np.flatnonzero(lengths > t)
        item = history.items[history.offsets[users] + t] - 1
        within, anywhere = _emissions(config, leaf, weight, unseen[users])
        seen = np.take_along_axis(anywhere, item[:, None], 1)
        # P(item | state): the noise term for all leaves, the walk term for the item's leaf; equal for all moods
        chance = np.repeat(config.noise * seen, config.leaves, 1) + (1 - config.noise) * np.where(
            np.arange(config.leaves) == leaf[item][:, None],
            np.take_along_axis(within, item[:, None], 1),
            np.where(_exhausted(config, leaf, unseen[users]), seen, 0),
        )
        posterior = belief[users] * np.tile(chance, config.moods)
        belief[users] = posterior / posterior.sum(1, keepdims=True) @ step
        unseen[users, item] = False
    within, anywhere = _emissions(config, leaf, weight, unseen)
    on_leaf = belief.reshape(len(lengths), config.moods, config.leaves).sum(1)
    lost = (on_leaf * _exhausted(config, leaf, unseen)).sum(1, keepdims=True)
    walk = within * on_leaf[:, leaf] + lost * anywhere
    return np.pad(config.noise * anywhere + (1 - config.noise) * walk, ((0, 0), (1, 0)))


def _truth_of(path: str | Path, data: NamedDataset) -> pl.DataFrame:
    """Read the truth in the order of the item rows of `data`."""
    file = Path(path) / "truth.parquet"
    if not file.exists():
        raise ValueError(f"{file} does not exist: only a planted bundle has a known truth")
    truth = data.items.select("item_id").join(
        pl.read_parquet(file, glob=False), on="item_id", how="left", maintain_order="left"
    )
    if truth["leaf"].null_count():
        raise ValueError(f"{file} has no row for item {truth.filter(pl.col('leaf').is_null())['item_id'][0]!r}")
    return truth


def _draw_truth(config: PlantedConfig) -> tuple[pl.DataFrame, Int[np.ndarray, "moods leaves"]]:
    """Place items on leaves, give them nuisances and Zipf weights, and draw the leaf-to-leaf map of each mood."""
    rng = np.random.default_rng([config.seed, 1])
    place = rng.permutation(config.items)  # so item ids reveal neither leaf nor popularity
    leaf, rank = place % config.leaves, place // config.leaves
    digits = np.unravel_index(leaf, config.branching)
    columns = {"item_id": [f"p{i:05d}" for i in range(config.items)]}
    columns |= {f"level_{level + 1}": digit for level, digit in enumerate(digits)}
    columns |= {"leaf": leaf, "weight": 1 / (1 + rank)}
    columns |= {f"{m}_nuisance": rng.integers(0, config.nuisances, config.items) for m in ("text", "image")}
    paths = np.array(np.unravel_index(np.arange(config.leaves), config.branching))
    maps = []
    for mood in range(config.moods):
        moved = paths.copy()
        moved[0] = (paths[0] + mood + 1) % config.branching[0]
        for level in range(1, len(config.branching)):
            moved[level] = rng.permutation(config.branching[level])[paths[level]]
        maps.append(np.ravel_multi_index(tuple(moved), config.branching))
    if config.drift:
        columns["fate"] = fates(config)[leaf]
    return pl.DataFrame(columns), np.array(maps)


def fates(config: PlantedConfig) -> Int[np.ndarray, " leaves"]:
    """What the drift does to each leaf, as an index of `FATES`; all stay without a drift."""
    found = np.zeros(config.leaves, int)
    if config.drift:
        order = np.random.default_rng([config.seed, 4]).permutation(config.leaves)
        share = max(config.leaves // 6, 1)
        for fate in range(1, len(FATES)):
            found[order[(fate - 1) * share : fate * share]] = fate
    return found


def _changed(config: PlantedConfig, maps: Int[np.ndarray, "moods leaves"]) -> Int[np.ndarray, "moods leaves"]:
    """The maps after the drift: on leaves that change, the next leaf is in the branch opposite to the one before."""
    half = config.branching[0] // 2 * (config.leaves // config.branching[0])
    return np.where(fates(config) == FATES.index("changes"), (maps + half) % config.leaves, maps)


def _transitions(config: PlantedConfig, maps: Int[np.ndarray, "moods leaves"]) -> Float[np.ndarray, "states states"]:
    """Return P(next state | state) over the states (mood, leaf), mood-major."""
    moods, leaves = maps.shape
    family = np.arange(leaves) // config.branching[-1]
    kin = (family[:, None] == family[None, :]) / config.branching[-1]
    walk = FOLLOW * np.eye(leaves)[maps] + SIBLING * kin[maps] + JUMP / leaves  # (moods, leaves, leaves)
    change = KEEP_MOOD * np.eye(moods) + (1 - KEEP_MOOD) / moods
    return np.einsum("mn,mij->minj", change, walk).reshape(moods * leaves, moods * leaves)


def _emissions(
    config: PlantedConfig,
    leaf: Int[np.ndarray, " N"],
    weight: Float[np.ndarray, " N"],
    unseen: Bool[np.ndarray, "U N"],
) -> tuple[Float[np.ndarray, "U N"], Float[np.ndarray, "U N"]]:
    """Return P(item | its own leaf) and P(item | noise) over the items that each user has not seen."""
    open_weight = weight * unseen
    mass = open_weight @ np.eye(config.leaves)[leaf]
    within = open_weight / np.where(mass > 0, mass, 1)[:, leaf]
    return within, open_weight / open_weight.sum(1, keepdims=True)


def _exhausted(
    config: PlantedConfig, leaf: Int[np.ndarray, " N"], unseen: Bool[np.ndarray, "U N"]
) -> Bool[np.ndarray, "U leaves"]:
    """Whether each leaf has no unseen item left; the walk then draws from the noise distribution."""
    return unseen @ np.eye(config.leaves)[leaf] == 0


def _pick(rng: np.random.Generator, chances: Float[np.ndarray, "U S"]) -> Int[np.ndarray, " U"]:
    """Draw one column per row with the given probabilities."""
    edges = chances.cumsum(1)
    return (rng.random((len(chances), 1)) * edges[:, -1:] >= edges).sum(1)


def _draw_interactions(
    config: PlantedConfig, truth: pl.DataFrame, maps: Int[np.ndarray, "moods leaves"]
) -> pl.DataFrame:
    """Walk all users in parallel and return the interaction table, oldest first per user."""
    rng = np.random.default_rng([config.seed, 2])
    leaf, weight = truth["leaf"].to_numpy(), truth["weight"].to_numpy()
    spare = rng.exponential(config.length - SHORTEST, config.users).astype(int)
    alive = np.stack([fates(config) != FATES.index(gone) for gone in ("appears", "dies")])[:, leaf]  # before, after
    lengths = np.minimum(SHORTEST + spare, min(4 * config.length, alive.all(0).sum()))
    worlds = [_transitions(config, maps), _transitions(config, _changed(config, maps))]
    state = rng.integers(0, len(worlds[0]), config.users)
    unseen = np.ones((config.users, config.items), dtype=bool)
    chosen = np.zeros((config.users, lengths.max()), dtype=np.int64)
    times = _spread_times(config, lengths) if config.drift else None
    rows = np.arange(config.users)
    for t in range(lengths.max()):
        after = np.zeros(config.users, int) if times is None else (times[:, t] >= config.moment).astype(int)
        within, anywhere = _emissions(config, leaf, weight, unseen & alive[after])
        here = within * (leaf == (state % config.leaves)[:, None])
        free = (rng.random(config.users) < config.noise) | (here.sum(1) == 0)
        chosen[:, t] = _pick(rng, np.where(free[:, None], anywhere, here))
        unseen[rows, chosen[:, t]] = False
        step = worlds[0][state] if times is None else np.where(after[:, None], worlds[1][state], worlds[0][state])
        state = _pick(rng, step)
    kept = np.arange(lengths.max()) < lengths[:, None]
    if times is None:
        gaps = rng.integers(60, 86_400, chosen.shape).cumsum(1) + rng.integers(0, 10**7, (config.users, 1))
        times = BEGIN + gaps
    user, _ = np.nonzero(kept)
    table = {"user_id": [f"u{u:05d}" for u in user], "item_id": truth["item_id"].to_numpy()[chosen[kept]]}
    return pl.DataFrame(table | {"timestamp": times[kept]})


def _spread_times(config: PlantedConfig, lengths: Int[np.ndarray, " U"]) -> Int[np.ndarray, "U T"]:
    """Times of events with a drift: of each user's events over the whole time, ascending; entries behind are late."""
    rng = np.random.default_rng([config.seed, 5])
    drawn = rng.integers(0, SPAN, (config.users, lengths.max()))
    drawn[np.arange(lengths.max()) >= lengths[:, None]] = SPAN
    return BEGIN + np.sort(drawn, axis=1)


def _draw_items(path: Path, config: PlantedConfig, truth: pl.DataFrame) -> pl.DataFrame:
    """Write pictures (and direct features) below `path` and return the item table."""
    rng = np.random.default_rng([config.seed, 3])
    absent = {m: rng.random(config.items) < config.missing for m in ("text", "image")}
    digits = truth.select(pl.col("^level_.*$")).to_numpy()
    titles, texts = planted_rendering.write_texts(
        rng, config.branching, digits, truth["text_nuisance"].to_numpy(), config.text_signal
    )
    (path / "images").mkdir()
    files = []
    for i, (digit, nuisance) in enumerate(zip(digits, truth["image_nuisance"], strict=True)):
        files.append(None if absent["image"][i] else f"images/{truth['item_id'][i]}.png")
        if files[-1]:
            planted_rendering.draw_picture(rng, digit, nuisance, config.image_signal).save(path / files[-1])
    if config.features == "direct":
        (path / "features").mkdir()
        for modality, width in (("text", 32), ("image", 24)):
            mixed = _mix(rng, config, truth, modality, width)
            mixed[absent[modality]] = 0
            np.save(path / "features" / f"{modality}.npy", mixed)
    else:  # an encoder reads the title of an item without text, so such an item must not have one either
        titles = [None if gone else title for gone, title in zip(absent["text"], titles, strict=True)]
    text = [None if gone else text for gone, text in zip(absent["text"], texts, strict=True)]
    return pl.DataFrame({"item_id": truth["item_id"], "title": titles, "text": text, "image": files})


def _mix(
    rng: np.random.Generator, config: PlantedConfig, truth: pl.DataFrame, modality: str, width: int
) -> Float[np.ndarray, "N d"]:
    """Mix the one-hot path and the one-hot nuisance linearly, each scaled to its exact share of the energy."""
    ratio = getattr(config, f"{modality}_signal")
    nodes = [truth["leaf"].to_numpy() // int(np.prod(config.branching[depth:])) for depth in range(1, 4)]
    path = np.concatenate([np.eye(n.max() + 1)[n] for n in nodes[: len(config.branching)]], 1)
    nuisance = np.eye(config.nuisances)[truth[f"{modality}_nuisance"].to_numpy()]
    mixed = np.zeros((config.items, width))
    for one_hot, share in ((path, ratio / (1 + ratio)), (nuisance, 1 / (1 + ratio))):
        part = one_hot @ rng.normal(size=(one_hot.shape[1], width))
        part -= part.mean(0)
        mixed += part * np.sqrt(share / (part**2).sum(1).mean())
    return (mixed + rng.normal(scale=FEATURE_NOISE / np.sqrt(width), size=mixed.shape)).astype(np.float32)
