"""A second device made of CPU tensors: what a GPU refuses (mixing devices, numpy) fails here too, without a GPU."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
MIXING = {aten.copy_.default, aten.index.Tensor, aten.index_put.default, aten.index_put_.default}  # CUDA's exceptions
MIXING |= {aten._index_put_impl_.default}


class Elsewhere(Tensor):
    """A tensor of the second device: it holds a CPU tensor, runs its operators on that, and refuses company of CPU's.

    What a GPU allows is allowed: 0-dimensional tensors of the CPU, indices on the CPU, copies between devices.
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
        with torch.inference_mode(False):  # in that mode, torch refuses views of wrapped tensors
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
    """A factory of torch as the second device has it."""
    packet, _, overload = name.partition(".")
    make = getattr(getattr(aten, packet), overload or "default")
    return lambda *args, **kwargs: Elsewhere(make(*args, **kwargs | {"device": torch.device("cpu")}))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """What `torch.tensor(..., device=...)` fills its tensor by."""
    target.inner.copy_(source)
    return target


def second_device() -> torch.device:
    """The second device, known to torch until the process ends."""
    if torch._C._get_privateuse1_backend_name() != "elsewhere":
        _setup_privateuseone_for_python_backend("elsewhere")
        library = torch.library.Library("aten", "IMPL")
        for name in FACTORIES:
            library.impl(name, _made(name), "PrivateUse1")
        library.impl("_copy_from", _copy_from, "PrivateUse1")
        second_device.library = library  # registrations live as long as it does
    return torch.device("elsewhere", 0)
