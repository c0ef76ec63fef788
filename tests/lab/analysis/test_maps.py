"""Regions of a map: they cover it at every level of detail, and their words are those that are frequent there."""

import math
from collections import Counter

import numpy as np
import pytest

from bbqrec_lab.analysis import maps


@pytest.fixture(scope="module")
def plane() -> np.ndarray:
    """Three clouds of 200 points, far from each other."""
    rng = np.random.default_rng(0)
    return np.concatenate([middle + 0.1 * rng.normal(size=(200, 2)) for middle in ((0, 0), (5, 0), (0, 5))])


TERMS = [{"red"}] * 200 + [{"green", "leaf"}] * 200 + [{"blue", "sky"}] * 100 + [{"blue", "sea"}] * 100


def test_the_regions_of_each_level_are_all_items(plane: np.ndarray) -> None:
    found = maps.regions(plane, TERMS)
    for level in range(maps.LEVELS + 2):
        there = [region for region in found if region.first <= level <= region.last]
        assert sum(region.items for region in there) == len(plane), level
    assert len({region.first for region in found}) > 1
    assert all(region.items >= maps.SMALLEST for region in found if region.last < math.inf)
    assert max(region.first for region in found) < maps.LEVELS


def test_a_region_lies_on_one_of_its_items_and_names_what_is_there(plane: np.ndarray) -> None:
    points = {tuple(point) for point in plane.tolist()}
    for region in maps.regions(plane, TERMS):
        assert (region.x, region.y) in points
        cloud = "blue" if region.y > 2.5 else "green" if region.x > 2.5 else "red"
        assert cloud in region.words or region.words[:1] in (("sky",), ("sea",)) or region.items < 10
    assert maps.regions(plane, TERMS) == maps.regions(plane, TERMS)


def test_typical_terms_have_the_highest_lift_and_are_no_chance() -> None:
    common = Counter({"rare": 10, "half": 50, "all": 100, "once": 1})
    inside = [{"rare", "half", "all"}] * 8 + [{"half", "all", "once"}] + [{"all"}]
    assert maps.typical(inside, common, 100) == ("rare",), "nine of ten against 50 % could be chance"
    many = Counter({"rare": 100, "half": 500, "all": 1000, "once": 10})
    assert maps.typical(inside * 10, many, 1000) == ("rare", "half")
    assert maps.typical(inside * 10, many, 1000, most=1) == ("rare",)
    assert maps.typical([{"few"}] * 3, Counter({"few": 3}), 100) == (), "three items are too few"


@pytest.mark.parametrize("items", [3, 30])
def test_few_or_equal_points_are_one_region(items: int) -> None:
    found = maps.regions(np.zeros((items, 2), dtype=np.float32), [set()] * items)
    assert [(region.items, region.words, region.last) for region in found] == [(items, (), math.inf)]
