"""Timing: turns, sizes and clocks; no time is asserted."""

import subprocess
import sys

import pytest
import torch

from bbqrec_lab.measure import Plan, Side, has_bf16, interleave, timed


def test_sides_take_turns_and_the_order_turns_too() -> None:
    calls: list[str] = []
    sides = {name: Side(lambda name=name: calls.append(name)) for name in "ab"}
    seconds = interleave(sides, Plan(repetitions=3))
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"  # the first round warms up
    assert {name: len(spent) for name, spent in seconds.items()} == {"a": 3, "b": 3}


def test_sizes_shrink_with_the_scale_to_no_less_than_a_floor() -> None:
    assert (Plan(0.5).size(100), Plan(0.001).size(100, 7), Plan().size(100, 7)) == (50, 7, 100)


def test_the_cpu_clock_does_not_count_waiting_but_counts_children() -> None:
    plan = Plan(clock="cpu")
    waited = timed(lambda: subprocess.run([sys.executable, "-c", "import time; time.sleep(0.5)"]), plan)
    worked = timed(lambda: subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"]), plan)
    assert waited < worked


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU decides")
@pytest.mark.parametrize(("name", "there"), [("amx_bf16", True), ("avx512_bf16", True), ("amx_int8", False)])
def test_bf16_is_found_by_the_instructions_of_the_processor(monkeypatch, name: str, there: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False} | {name: True})
    assert has_bf16() == there
