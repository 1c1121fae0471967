"""Equal plain layers in the place of subclasses: what computes a convolution or a norm in its own way is seen as one.

A subclass of `Conv2d` may compute its weight (weight standardisation, weight norm, a pruning mask, an adapter) and pad
its input ("SAME"), and in evaluation still be one convolution of constant weight. Its forward is run on noise of
several sizes and scales, its call of `conv2d` is watched, and the plain layer of the weight seen there takes its place
only if it computes the same for all of them. A norm with an activation inside (timm's `BatchNormAct2d`) becomes a
`Sequential` of the norm and the modules inside it, by the same proof. Whatever fails it stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from vfconvert.analysis.forward import evaluating
from vfconvert.analysis.profile import module_names, tied_parameters
from vfconvert.nn import SamePadding
from vfconvert.rewriting import replace_module

# Hooks before a forward that do nothing but compute the weight.
_COMPUTING = (WeightNorm, SpectralNorm, BasePruningMethod)
_HOOKS = ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
_RELATIVE_TOLERANCE = 1e-5
_EXTRA = (((2, 3), 1.0), ((3, 4), 100.0), ((4, 2), 0.01))  # beyond the kernel's reach, and the scale of the noise
NORM = "norm"  # name of the norm in the Sequential that takes the place of a norm and more


def made_plain(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with plain layers in place of equal subclasses, and their names; itself where there is none.

    `model` is in evaluation mode and stays as it is; the result shares the tensors of all other layers. What is found
    depends on the classes and numbers of the layers alone. In it a convolution that pads in its own way is
    `NAME.conv`, a norm with more inside `NAME.norm`.
    """
    found: dict[str, nn.Module] = {}
    names = module_names(model)
    tied = {full.rpartition(".")[0] for tie in tied_parameters(model) for full in tie}
    with evaluating(model):
        for module, called in names.items():
            if called[0] in tied or "" in called or not _special(module):
                continue
            plain = _plain_convolution(module) if isinstance(module, nn.Conv2d) else _plain_norm(module)
            if plain is not None:
                found.update(dict.fromkeys(called, plain.eval()))
    if not found:
        return model, ()
    tensors = (*model.parameters(), *model.buffers())
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    for name, plain in found.items():
        replace_module(twin, name, plain)
    return twin, tuple(found)


def _special(module: nn.Module) -> bool:
    """Whether a module is a convolution or a norm of a kind of its own, with no hooks but such as compute weights."""
    if any(getattr(module, hooks) for hooks in _HOOKS):
        return False
    before = tuple(module._forward_pre_hooks.values())
    if isinstance(module, nn.Conv2d):
        own = type(module) is not nn.Conv2d or module._parameters.get("weight") is None
        children = [child for child in module.children() if next(iter(child.state_dict()), None) is not None]
        inside = not parametrize.is_parametrized(module) and bool(children)  # padding has no tensors
        return own and not inside and all(isinstance(hook, _COMPUTING) for hook in before)
    return not before and (_is_norm_subclass(module) or _is_frozen_norm(module))


def _is_norm_subclass(module: nn.Module) -> bool:
    tracks = isinstance(module, nn.BatchNorm2d) and module.affine and module.running_mean is not None
    return tracks and type(module) is not nn.BatchNorm2d


def _is_frozen_norm(module: nn.Module) -> bool:
    """A BatchNorm whose weight and bias are buffers, as torchvision's detectors have them."""
    return set(module._buffers) == {"weight", "bias", "running_mean", "running_var"} and hasattr(module, "eps")


class _Watch(TorchFunctionMode):
    """Notes the arguments of every call of `conv2d` by their names."""

    _NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.conv2d:
            self.calls.append(dict(zip(self._NAMES, args, strict=False)) | kwargs)
        return func(*args, **kwargs)


def _plain_convolution(module: nn.Conv2d) -> nn.Module | None:
    """One convolution that computes what `module` does, padding before it where need be."""
    generator = torch.Generator().manual_seed(0)
    reach = [d * (k - 1) + 1 for k, d in zip(module.kernel_size, module.dilation, strict=True)]
    device = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    if device.type == "meta":
        return None
    cases: list[tuple[Tensor, Tensor]] = []
    call: dict[str, Any] = {}
    for (down, right), scale in _EXTRA:
        size = (1, module.in_channels, reach[0] + down, reach[1] + right)
        x = (scale * torch.randn(size, generator=generator)).to(device)
        try:
            with _Watch() as watch:
                cases.append((x, module(x.clone())))
        except Exception:  # whatever a forward raises: it is not understood
            return None
        if len(watch.calls) != 1:
            return None
        call = call or watch.calls[0]
    return next((plain for plain in _candidates(module, call, cases[0][0]) if _computes(plain, cases)), None)


def _candidates(module: nn.Conv2d, call: Mapping[str, Any], x: Tensor) -> Iterator[nn.Module]:
    """Plain layers of the weight that was seen: padded as the module or its call says, to SAME size, as `x` was."""
    if call["weight"].dim() != 4:
        return
    stride, dilation = _pair(call.get("stride", 1)), _pair(call.get("dilation", 1))
    padding = call.get("padding", 0)
    yield _convolution(call, module.padding, module.padding_mode)
    yield _convolution(call, padding if isinstance(padding, str) else _pair(padding), "zeros")
    paddings: list[nn.Module] = [SamePadding(_pair(call["weight"].shape[2:]), stride, dilation)]
    if (around := _zeros_around(x, call["input"])) is not None:
        left, right, top, bottom = around
        if (left, top) == (right, bottom):
            yield _convolution(call, (top, left), "zeros")
        paddings.append(nn.ZeroPad2d(around))
    for pad in paddings:
        layers = nn.Sequential()
        layers.add_module("pad", pad)
        layers.add_module("conv", _convolution(call, (0, 0), "zeros"))
        yield layers


def _zeros_around(x: Tensor, padded: Tensor) -> tuple[int, int, int, int] | None:
    """How many zeros left, right, above and below make `padded` of `x`; None where it is not made of it so."""
    if padded.shape[:2] != x.shape[:2] or not bool(padded.any()):
        return None
    around: list[int] = []
    for axis, other in ((3, 2), (2, 3)):
        begin = int(padded.ne(0).flatten(0, 1).any(0).any(other - 2).nonzero()[0])
        end = padded.shape[axis] - x.shape[axis] - begin
        if end < 0:
            return None
        around += [begin, end]
    left, right, top, bottom = around
    return (left, right, top, bottom) if torch.equal(F.pad(x, around), padded) else None


def _convolution(call: Mapping[str, Any], padding: str | tuple[int, ...], mode: str) -> nn.Conv2d:
    weight: Tensor = call["weight"]
    bias, groups = call.get("bias"), call.get("groups", 1)
    layer: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d,
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=_pair(call.get("stride", 1)),
        padding=padding,
        dilation=_pair(call.get("dilation", 1)),
        groups=groups,
        bias=bias is not None,
        padding_mode=mode,
        device=weight.device,
        dtype=weight.dtype,
    )
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


def _plain_norm(module: nn.Module) -> nn.Module | None:
    """The norm, or the norm and the modules inside it, one after the other."""
    state = {**module._parameters, **module._buffers}
    mean: Tensor = state["running_mean"]  # type: ignore[assignment]
    kept: Any = module
    norm = nn.BatchNorm2d(len(mean), eps=kept.eps, device=mean.device, dtype=mean.dtype)
    norm.momentum = getattr(module, "momentum", norm.momentum)
    for name in ("weight", "bias"):
        norm._parameters[name] = nn.Parameter(state[name].detach(), requires_grad=False)  # type: ignore[union-attr]
    for name in ("running_mean", "running_var"):
        norm._buffers[name] = state[name]
    norm._buffers["num_batches_tracked"] = state.get("num_batches_tracked", torch.zeros((), dtype=torch.long))
    inside = dict(module.named_children())
    plain = nn.Sequential() if inside else norm
    for name, part in {NORM: norm, **inside}.items() if inside and NORM not in inside else ():
        plain.add_module(name, part)
    generator = torch.Generator().manual_seed(0)
    cases = []
    for (height, width), scale in _EXTRA:
        x = (scale * torch.randn((2, len(mean), height, width), generator=generator)).to(mean)
        try:
            cases.append((x, module(x.clone())))
        except Exception:  # whatever a forward raises: it is not understood
            return None
    return plain if _computes(plain, cases) else None


def _computes(plain: nn.Module, cases: list[tuple[Tensor, Tensor]]) -> bool:
    plain.eval()
    for x, wanted in cases:
        try:
            got = plain(x.clone())
        except (RuntimeError, ValueError):  # padding that the size does not allow
            return False
        size = float(wanted.abs().max()) if isinstance(wanted, Tensor) and wanted.numel() else 0.0
        if not isinstance(wanted, Tensor) or got.shape != wanted.shape:
            return False
        if not float((got - wanted).abs().max()) <= _RELATIVE_TOLERANCE * size:
            return False
    return True


def _pair(value: Any) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list, torch.Size)) else (value, value)
    return (pair[0], pair[-1])
