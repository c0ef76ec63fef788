"""Appearance of planted items: texts from two lexicons, pictures of shapes on textured backgrounds."""

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

WIDEST = (8, 4, 3)  # children per node that words and shapes can distinguish, per level
WORDS = 12  # words per description, behaviour and nuisance together
SIZE = 64  # pixels, both sides
TOPICS = (  # behaviour words: one row per branch at the top of the tree
    "harbour sailor tide anchor lighthouse reef voyage captain",
    "orchard farmer harvest meadow tractor barn seedling plough",
    "rocket planet orbit astronaut comet telescope galaxy lander",
    "violin orchestra melody conductor concert rhythm opera choir",
    "detective murder clue suspect alibi witness verdict thief",
    "baker kitchen recipe oven pastry spice flour banquet",
    "glacier summit climber avalanche ridge blizzard rope crevasse",
    "football stadium striker goalkeeper referee penalty trophy league",
)
NUISANCE_WORDS = (  # nuisance words: behaviour does not depend on them
    "hardcover gilt leather embossed vellum clasp ribbon slipcase",
    "paperback pocket budget cheap newsprint stapled reprint flimsy",
    "download digital streaming pixel online screen subscription app",
    "audio narrated spoken cassette headphones recording loud stereo",
    "plastic waterproof inflatable neon sticker glitter magnet rubber",
    "museum framed antique auction signed rare archive catalogue",
)
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
# vertices and inner radius of the shape of each top branch
SHAPES = ((40, 1.0), (3, 1.0), (4, 1.0), (5, 0.4), (4, 0.3), (6, 1.0), (12, 0.7), (2, 0.35))
GROUNDS = (  # background, stripe and shape colours (RGB) and texture of each nuisance
    ((235, 225, 200), (210, 190, 150), (150, 30, 40), "plain"),
    ((20, 30, 70), (50, 70, 140), (250, 220, 60), "rows"),
    ((30, 90, 50), (60, 140, 80), (240, 240, 240), "columns"),
    ((250, 170, 190), (240, 90, 140), (40, 40, 120), "checks"),
    ((60, 60, 60), (110, 110, 110), (80, 220, 230), "dots"),
    ((250, 140, 40), (200, 90, 10), (20, 20, 20), "diagonal"),
)


def pseudo_words(rng: np.random.Generator, count: int) -> list[str]:
    """Generate `count` different pronounceable words of three syllables (at most 343,000)."""
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    numbers = rng.choice(len(syllables) ** 3, count, replace=False)
    places = np.unravel_index(numbers, (len(syllables),) * 3)
    return ["".join(syllables[k] for k in word) for word in zip(*places, strict=True)]


def write_texts(
    rng: np.random.Generator,
    branching: Sequence[int],
    digits: Int[np.ndarray, "N levels"],
    nuisance: Int[np.ndarray, "N"],
    ratio: float,
) -> tuple[list[str], list[str]]:
    """Write one title and one description per item.

    A node at the top of the tree has the words of a topic; each lower node has generated words. A description draws
    ratio / (1 + ratio) of its 12 words from the nodes of the item's path and the others from the nuisance lexicon.

    Returns: (titles, texts); titles are unique and not part of the texts.
    """
    node_words = {(topic,): TOPICS[topic].split() for topic in range(branching[0])}
    lower = [node for depth in range(2, len(branching) + 1) for node in np.ndindex(*branching[:depth])]
    made_up = iter(pseudo_words(rng, 3 * len(lower) + len(digits)))
    node_words |= {node: list(islice(made_up, 3)) for node in lower}
    share = round(WORDS * ratio / (1 + ratio))
    titles, texts = [], []
    for path, style in zip(digits, nuisance, strict=True):
        nodes = [tuple(int(d) for d in path[:depth]) for depth in range(1, len(path) + 1)]
        words = [rng.choice(node_words[node]) for node in islice(cycle(nodes), share)]
        words += list(rng.choice(NUISANCE_WORDS[style].split(), WORDS - share))
        texts.append(" ".join(rng.permutation(words)))
        names = " ".join(rng.choice(node_words[node]) for node in nodes)
        titles.append(f"{names} of {next(made_up)}".capitalize())
    return titles, texts


def draw_picture(
    rng: np.random.Generator, digits: Int[np.ndarray, "levels"], nuisance: int, ratio: float
) -> Image.Image:
    """Draw an item: the first digit sets the outline, the second the number of shapes, the third fill, ring or hole.

    Colours and texture come from the nuisance. The shapes cover about ratio / (1 + ratio) of their maximal area.

    Returns: an RGB picture of 64 x 64 pixels.
    """
    ground, mark, colour, texture = GROUNDS[nuisance]
    picture = Image.fromarray(_texture(texture, ground, mark, rng))
    canvas = ImageDraw.Draw(picture)
    count = 1 + (int(digits[1]) if len(digits) > 1 else 0)
    style = int(digits[2]) if len(digits) > 2 else 0
    columns, rows = ((1, 1), (2, 1), (2, 2), (2, 2))[count - 1]
    radius = min(SIZE / columns, SIZE / rows) / 2 * np.sqrt(ratio / (1 + ratio))
    for k in range(count):
        centre = (np.array([k % columns, k // columns]) + 0.5) * [SIZE / columns, SIZE / rows]
        centre += rng.uniform(-0.05, 0.05, 2) * SIZE
        turn = rng.uniform(-0.2, 0.2)
        canvas.polygon(_outline(centre, radius, SHAPES[digits[0]], turn), fill=colour)
        if style:
            inner = radius * (0.65 if style == 1 else 0.3)
            canvas.polygon(_outline(centre, inner, SHAPES[digits[0]], turn), fill=ground)
    return picture


def _outline(
    centre: Float[np.ndarray, "2"], radius: float, shape: tuple[int, float], turn: float
) -> list[tuple[float, float]]:
    """Corners of a star; every second one lies on the inner radius. Inner radius 1 gives a regular polygon."""
    corners, inner = shape
    steps = corners if inner == 1 else 2 * corners
    angles = turn - np.pi / 2 + 2 * np.pi * np.arange(steps) / steps
    reach = np.where(np.arange(steps) % 2, inner, 1.0) * radius
    return [(centre[0] + r * np.cos(a), centre[1] + r * np.sin(a)) for r, a in zip(reach, angles, strict=True)]


def _texture(kind: str, ground: tuple, mark: tuple, rng: np.random.Generator) -> UInt8[np.ndarray, "64 64 3"]:
    """Paint the background with stripes, checks or dots of the mark colour, with a random shift and pixel noise."""
    y, x = np.mgrid[:SIZE, :SIZE] + rng.integers(0, 8, (2, 1, 1))
    marked = {
        "plain": np.zeros_like(x, dtype=bool),
        "rows": y % 8 < 4,
        "columns": x % 8 < 4,
        "checks": (x // 8 + y // 8) % 2 == 0,
        "dots": (x % 10 - 5) ** 2 + (y % 10 - 5) ** 2 < 9,
        "diagonal": (x + y) % 12 < 6,
    }[kind]
    pixels = np.where(marked[..., None], mark, ground) + rng.normal(scale=6, size=(SIZE, SIZE, 3))
    return pixels.clip(0, 255).astype(np.uint8)
