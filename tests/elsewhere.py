"""A mock device made of CPU tensors: it rejects CPU-only operations (mixed devices, numpy) as a GPU does.

The fixture `device` (conftest.py imports it) sets it as the training device, and also a GPU if there is one.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
# Operators that accept mixed devices on CUDA.
MIXING = {aten.copy_.default, aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
MIXING |= {aten._index_put_impl_.default}


class Elsewhere(Tensor):
    """A tensor of the mock device: it holds a CPU tensor, runs operators on it, and rejects other CPU tensors.

    As on a GPU, these are allowed: 0-dimensional CPU tensors, indices on the CPU, copies between devices.
    """

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device="elsewhere:0"
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"Elsewhere({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [entry for entry in pytree.tree_leaves((args, kwargs)) if isinstance(entry, Tensor)]
        strangers = [entry for entry in given if not isinstance(entry, cls) and entry.dim()]
        if strangers and func not in MIXING:
            raise RuntimeError(f"{func}: expected all tensors on one device, found {strangers[0].device} and elsewhere")
        asked = [entry for entry in pytree.tree_leaves((args, kwargs)) if isinstance(entry, torch.device)]
        stays = all(device.type == "elsewhere" for device in asked)
        inner = pytree.tree_map_only(cls, lambda entry: entry.inner, (args, kwargs))
        inner_args, inner_kwargs = pytree.tree_map_only(torch.device, lambda _: torch.device("cpu"), inner)
        with torch.inference_mode(False):  # in inference mode, torch rejects views of wrapped tensors
            out = func(*inner_args, **inner_kwargs)
        if func is aten._to_copy.default and out is inner_args[0]:
            out = out.clone()
        if func is aten.copy_.default and not isinstance(args[0], cls):
            return args[0]  # copied to the CPU
        if stays:
            with torch.inference_mode(False):
                out = pytree.tree_map_only(Tensor, cls, out)
            return return_and_correct_aliasing(func, args, kwargs, out)
        return out


FACTORIES = (
    *("arange", "arange.start", "arange.start_step", "empty.memory_format", "empty_strided", "eye", "full", "linspace"),
    *("ones", "rand", "randint", "randint.low", "randn", "randperm", "scalar_tensor", "zeros"),
)


def _made(name: str) -> Callable[..., Elsewhere]:
    """A factory function of torch for the mock device."""
    packet, _, overload = name.partition(".")
    make = getattr(getattr(aten, packet), overload or "default")
    return lambda *args, **kwargs: Elsewhere(make(*args, **kwargs | {"device": torch.device("cpu")}))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """The copy that `torch.tensor(..., device=...)` uses to fill its tensor."""
    target.inner.copy_(source)
    return target


def second_device() -> torch.device:
    """Register the mock device with torch, until the process ends, and return it."""
    if torch._C._get_privateuse1_backend_name() != "elsewhere":
        _setup_privateuseone_for_python_backend("elsewhere")
        library = torch.library.Library("aten", "IMPL")
        for name in FACTORIES:
            library.impl(name, _made(name), "PrivateUse1")
        library.impl("_copy_from", _copy_from, "PrivateUse1")
        second_device.library = library  # the registrations last as long as this object
    return torch.device("elsewhere", 0)


GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"))


def train_on(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make both stages train on a device."""
    for stage in ("recommender", "tokenizer"):
        monkeypatch.setattr(f"bbqrec_core.{stage}.fit.best_device", lambda: device)


@pytest.fixture(params=["elsewhere", GPU])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device other than the CPU, set as the training device."""
    found = second_device() if request.param == "elsewhere" else torch.device("cuda")
    train_on(found, monkeypatch)
    return found


def near(found: np.ndarray, wanted: np.ndarray, share: float = 0.99) -> bool:
    """Whether integer arrays agree except for near ties, which another summation order may decide differently."""
    return found.shape == wanted.shape and (found == wanted).mean() > share
