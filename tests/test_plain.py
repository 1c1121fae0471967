"""Subclasses that are one convolution of constant weight, or a norm and more, become plain layers; others stay."""

import copy

import pytest
import timm.layers as timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm
from torchvision.ops import FrozenBatchNorm2d

from vfconvert.nn import SamePadding
from vfconvert.plain import made_plain


class Adapted(nn.Conv2d):
    """A weight with an adapter of low rank, and a way of its own to pad."""

    def __init__(self) -> None:
        super().__init__(8, 8, 3, padding=1, padding_mode="circular")
        self.left, self.right = nn.Parameter(torch.randn(8, 2)), nn.Parameter(torch.randn(2, 72))

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight + (self.left @ self.right).view_as(self.weight), self.bias)


class Rectified(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Clipping(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(-20, 20))


class Dynamic(nn.Conv2d):
    """The weight depends on the input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * x.std(), self.bias)


class Twice(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(x)


class Padded(nn.Conv2d):
    """Pads by a module inside, as networks ported from TensorFlow do, and may do more."""

    def __init__(self, around: nn.Module, after: nn.Module | None = None, stride: int = 1) -> None:
        super().__init__(8, 8, 3, stride=stride)
        self.around, self.after = around, after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self._conv_forward(self.around(x), self.weight, self.bias))


def hooked() -> nn.Module:
    layer = timm.StdConv2d(8, 8, 3)
    layer.register_forward_hook(lambda module, inputs, output: output * 2)
    return layer


def norm(kind: type[nn.Module], **settings: object) -> nn.Module:
    layer = kind(8, **settings)
    for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5 if name in ("weight", "running_var") else -1, 1.5)
    return layer


def plain_of(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The network of one layer, "0", before and after."""
    torch.manual_seed(0)
    model = nn.Sequential(layer).eval()
    before = copy.deepcopy(model.state_dict())
    plain, _ = made_plain(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return model, plain


def difference(model: nn.Module, plain: nn.Module) -> float:
    """The largest relative one over inputs of several sizes."""
    found = 0.0
    for size in ((9, 12), (10, 11), (8, 15)):
        x = torch.randn(2, 8, *size)
        wanted = model(x.clone())
        found = max(found, float((plain(x.clone()) - wanted).abs().max() / wanted.abs().max()))
    return found


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: timm.StdConv2d(8, 8, 3, stride=2), id="weight standardisation"),
        pytest.param(lambda: timm.ScaledStdConv2d(8, 8, 3, groups=2), id="scaled standardisation in groups"),
        pytest.param(Adapted, id="adapter with circular padding"),
        pytest.param(lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), id="weight norm"),
        pytest.param(lambda: parametrizations.spectral_norm(nn.Conv2d(8, 8, 3)), id="spectral norm"),
        pytest.param(lambda: spectral_norm(nn.Conv2d(8, 8, 3)), id="spectral norm by a hook"),
        pytest.param(lambda: prune.random_unstructured(nn.Conv2d(8, 8, 3), "weight", 0.5), id="pruning mask"),
    ],
)
@torch.no_grad()
def test_computed_weights_become_constants(build):
    model, plain = plain_of(build())
    assert type(plain[0]) is nn.Conv2d
    assert difference(model, plain) < 1e-6


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: timm.Conv2dSame(8, 8, 3, stride=2), id="stride 2"),
        pytest.param(lambda: timm.Conv2dSame(8, 8, 4, stride=2, dilation=2), id="even kernel, dilated"),
        pytest.param(lambda: timm.StdConv2dSame(8, 8, 3, stride=2), id="standardised"),
        pytest.param(lambda: timm.ScaledStdConv2dSame(8, 8, (3, 5), stride=2), id="scaled, oblong"),
    ],
)
@torch.no_grad()
def test_same_padding_becomes_a_layer_of_its_own(build):
    model, plain = plain_of(build())
    assert [type(part) for part in plain[0]] == [SamePadding, nn.Conv2d]
    assert plain[0].conv.padding == (0, 0)
    assert difference(model, plain) < 1e-6


@torch.no_grad()
def test_same_padding_without_a_stride_is_always_the_same():
    model, plain = plain_of(timm.Conv2dSame(8, 8, 4, dilation=2))
    assert (type(plain[0]), plain[0].padding) == (nn.Conv2d, (3, 3))
    assert difference(model, plain) < 1e-6


@pytest.mark.parametrize(
    ("around", "padding"),
    [
        pytest.param((0, 1, 0, 1), (0, 1, 0, 1), id="below and right"),
        pytest.param((2, 1, 0, 3), (2, 1, 0, 3), id="four sides"),
        pytest.param((2, 2, 1, 1), None, id="symmetric"),
        pytest.param((0, 0, 0, 0), None, id="none"),
    ],
)
@torch.no_grad()
def test_padding_by_a_module_inside_is_seen(around, padding):
    model, plain = plain_of(Padded(nn.ZeroPad2d(around), stride=2))
    if padding is None:
        assert (type(plain[0]), plain[0].padding) == (nn.Conv2d, (around[2], around[0]))
    else:
        assert [type(part) for part in plain[0]] == [nn.ZeroPad2d, nn.Conv2d]
        assert plain[0].pad.padding == padding
    assert difference(model, plain) < 1e-6


@pytest.mark.parametrize(
    "build",
    [
        lambda: Padded(nn.ConstantPad2d((0, 1, 0, 1), 1.0)),
        lambda: Padded(nn.ReflectionPad2d(1)),
        lambda: Padded(nn.ZeroPad2d((-1, 0, 0, 0))),
        lambda: Padded(nn.ZeroPad2d((0, 1, 0, 1)), nn.ReLU()),
        lambda: Padded(nn.Conv2d(8, 8, 1)),
        lambda: Padded(nn.BatchNorm2d(8)),
    ],
    ids=["ones", "reflection", "cut", "activation", "convolution", "norm"],
)
def test_other_modules_inside_are_never_lost(build):
    model, plain = plain_of(build())
    assert plain is model


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        pytest.param(lambda: norm(timm.BatchNormAct2d), ["BatchNorm2d", "Identity", "ReLU"], id="with activation"),
        pytest.param(
            lambda: norm(timm.BatchNormAct2d, apply_act=False), ["BatchNorm2d", "Identity", "Identity"], id="without"
        ),
        pytest.param(lambda: norm(FrozenBatchNorm2d), ["BatchNorm2d"], id="frozen"),
    ],
)
@torch.no_grad()
def test_norms_become_plain_ones_and_what_follows(build, parts):
    model, plain = plain_of(build())
    assert [type(part).__name__ for part in plain[0].modules() if not isinstance(part, nn.Sequential)] == parts
    assert difference(model, plain) < 1e-6


@pytest.mark.parametrize(
    "build", [lambda: Rectified(8, 8, 3), lambda: Clipping(8, 8, 3), lambda: Dynamic(8, 8, 3), lambda: Twice(8, 8, 3)]
)
def test_what_is_no_convolution_of_constant_weight_stays(build):
    model, plain = plain_of(build())
    assert plain is model


def test_hooks_are_never_lost():
    model, plain = plain_of(hooked())
    assert plain is model


def test_tied_weights_stay_tied():
    model = nn.Sequential(timm.StdConv2d(8, 8, 3), timm.StdConv2d(8, 8, 3)).eval()
    model[1].weight = model[0].weight
    assert made_plain(model) == (model, ())


@torch.no_grad()
def test_meta_another_weight_differs():
    model, plain = plain_of(timm.StdConv2d(8, 8, 3))
    plain[0].weight[0] *= 1.001
    assert difference(model, plain) > 1e-5


def test_names_tell_where_the_parts_are():
    model = nn.ModuleDict({"c": timm.Conv2dSame(8, 8, 3, stride=2), "n": timm.BatchNormAct2d(8)}).eval()
    plain, names = made_plain(model)
    assert names == ("c", "n")
    assert {"c.pad", "c.conv", "n.norm", "n.drop", "n.act"} <= {name for name, _ in plain.named_modules()}
    assert made_plain(plain) == (plain, ())
