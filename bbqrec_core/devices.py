"""Where models are trained and rank: on a GPU where there is one, else on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def best_device() -> torch.device:
    """The GPU of CUDA where torch finds one, else the CPU; CUDA_VISIBLE_DEVICES chooses among several, or none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """`cpu`, or the kind of device and its model, for tables."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def moved(batch: Tensor | tuple[Tensor, ...], device: torch.device) -> Tensor | tuple[Tensor, ...]:
    """A batch on another device."""
    return batch.to(device) if isinstance(batch, Tensor) else tuple(part.to(device) for part in batch)


@contextmanager
def training_precision(device: torch.device) -> Iterator[None]:
    """Mixed precision while training on a GPU: factors of products are rounded to TF32, sums stay float32.

    Choice: not bfloat16, whose casts are kernels of their own, while models as narrow as these wait for launches; and
    not in ranking, where a beam's scores and exact ones are the same numbers. On the CPU nothing changes.
    """
    before = torch.get_float32_matmul_precision()
    if device.type != "cpu":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
