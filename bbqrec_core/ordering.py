"""Millions of numbers in order: the sort that is fast here, rows joined into numbers, and runs of equal ones."""

from collections.abc import Callable
from functools import cache, partial
from timeit import timeit

import numpy as np
import polars as pl
from jaxtyping import Int, Integer

_BLOCK = 2**13  # rows that are joined at a time, so that they stay in the cache


def _by_numpy(numbers: Int[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
    """Sort in place."""
    numbers.sort()
    return numbers


def _by_polars(numbers: Int[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
    """Sort a copy."""
    return pl.Series(numbers).sort().to_numpy()


@cache
def faster_sort() -> Callable[[np.ndarray], np.ndarray]:
    """The sort of 64-bit numbers that puts a sample in order sooner on this machine; it may spend what it is given.

    Choice: numpy's leans on AVX-512, fast on one processor and slow on another: it takes a third of polars' time on an
    Intel Xeon, and four times as long on an AMD Zen 4.
    """

    def seconds(sort: Callable[[np.ndarray], np.ndarray]) -> float:
        samples = [np.random.default_rng(seed).integers(0, 2**62, 2**16) for seed in range(3)]
        return min(timeit(partial(sort, sample), number=1) for sample in samples)

    return min(_by_numpy, _by_polars, key=seconds)


def in_order(
    table: Int[np.ndarray, "N columns"], bits: int, head: Int[np.ndarray, "N"] | None = None
) -> tuple[Integer[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """Sort the rows of a table, equal ones by their place.

    Choice: where no head takes up room, its place is in a row's number too, since sorting numbers is ten times as fast
    as finding their order; rows are joined block by block, in the cache.

    Args: table: from 0 to 2^bits. head: a number before the first column. Numbers and head, or row, take up to 63 bits.
    Returns: each row as one number, `bits` a column; and the rows, from 0.
    """
    count = len(table)
    place = count.bit_length()
    key = np.zeros(count, np.int64) if head is None else head.astype(np.int64)
    for start in range(0, count, _BLOCK):
        block = key[start : start + _BLOCK]
        for column in table[start : start + _BLOCK].T:
            block <<= bits
            block |= column
        if head is None:
            block <<= place
            block |= np.arange(start, start + len(block))
    if head is not None:
        order = np.argsort(key, kind="stable")
        return key[order], order.astype(np.int32)
    key = faster_sort()(key)
    rows = np.empty(count, np.int32)
    numbers = np.empty(count, np.uint32 if bits * table.shape[1] <= 32 else np.int64)
    np.bitwise_and(key, (1 << place) - 1, out=rows, casting="unsafe")  # straight into 32 bits: new memory takes time
    np.right_shift(key, place, out=numbers, casting="unsafe")
    return numbers, rows


def runs(
    numbers: Integer[np.ndarray, "N"],
) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "runs"], Integer[np.ndarray, "runs"]]:
    """Runs of equal ones in sorted numbers.

    Choice: by polars, which takes half of numpy's time for each of the three.

    Returns: the run of every number, the place of the first of each run, and the number of each run.
    """
    opens = np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)]
    if opens.all():  # as IDs are after a repair
        return np.arange(len(numbers), dtype=np.int32), np.arange(len(numbers), dtype=np.int32), numbers
    first = pl.int_range(len(numbers), dtype=pl.Int32, eager=True).filter(opens).to_numpy()
    series = pl.Series(numbers)
    return series.rle_id().to_numpy(writable=True).view(np.int32), first, series.filter(opens).to_numpy()
