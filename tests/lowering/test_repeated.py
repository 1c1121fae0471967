"""Layers of several calls in their inference form: the same outputs, one bank, slices taken once, time of all calls."""

import copy
import operator
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.lowering.nets import WISHES, converted
from tests.references import assert_close_enough
from tests.repeated_nets import OwnNorms, Pyramid, Recurrent
from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.profile import Call, LayerProfile, profile
from vfconvert.lowering.costs import CostTable, executed
from vfconvert.lowering.network import lower
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.blocks import PLAIN


class Siamese(nn.Module):
    """An encoder that runs on both halves of its input, in place wherever it can be, and a layer that reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 16, 3, padding=1)
        self.encode = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.shared = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.match = nn.Conv2d(32, 16, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        halves = [self.act(self.stem(half)) for half in (x[:, :2], x[:, 2:])]
        halves = [self.act(self.norm(self.encode(half))) for half in halves]
        halves[1] += halves[0]
        both = torch.cat([self.act(self.shared(half)) for half in halves], 1)
        return F.max_pool2d(self.match(both), 2)


NETS = {
    "pyramid": (Pyramid, 3),
    "recurrent": (Recurrent, 3),
    "recurrent, norm": (lambda: Recurrent(norms=True), 3),
    "own norms": (OwnNorms, 3),
    "siamese": (Siamese, 4),
}


def made(kind: str, wish: str):
    build, channels = NETS[kind]
    torch.manual_seed(0)
    x = torch.randn((2, channels, 12, 12), dtype=torch.float64)
    return *converted(build(), x, WISHES[wish]), x


def layers_of(student: nn.Module) -> dict[str, VersatileConv2d]:
    return {name: module for name, module in student.named_modules() if isinstance(module, VersatileConv2d)}


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("variant", ["segments", "full", "separate", "plain"])
def test_lowered_computes_the_same(kind, wish, variant):
    student, network, x = made(kind, wish)
    lowered = lower(student, network, dict.fromkeys(layers_of(student), variant)).model
    with torch.no_grad():
        assert_close_enough(lowered(x.clone()), student(x.clone()), tolerance=1e-10)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("wish", ["spatial", "channel", "both"])
def test_layers_of_several_calls_are_lowered_and_their_banks_stand_once(kind, wish):
    student, network, x = made(kind, wish)
    layers = profile(student, x)
    several = [layer.name for layer in layers.layers if layer.versatile and len(layer.calls) > 1]
    assert several
    lowered = lower(student, network)
    assert all(lowered.variants[name] == "segments" for name in several)
    held = [p for p in lowered.model.parameters() if p.dim() == 4 and p.shape[1:].numel() > 1]
    kept = [m.weight for m in student.modules() if type(m) is nn.Conv2d]
    assert sum(p.numel() for p in held) == sum(
        w.numel() for w in (*kept, *(v.weight for v in layers_of(student).values()))
    )
    plain = sum(layer.output_positions * layer.geometry.weight_numbers for layer in layers.layers if layer.versatile)
    saved = plain - sum(executed(student, layers, lowered.variants).values())
    assert count_macs(lowered.model, x).total == count_macs(student, x).total - saved


def test_weights_are_made_once_for_all_calls():
    student, network, _ = made("pyramid", "both")
    lowered = lower(student, network).model
    uses = Counter(node.args[1] for node in lowered.graph.nodes if node.target is F.conv2d)
    assert set(uses.values()) == {1, 3}  # of a head on three levels every weight serves three convolutions
    made_of_stored = [node for node in lowered.graph.nodes if node.target is operator.mul]
    assert len(made_of_stored) <= len(uses)


def test_meta_a_call_that_is_lowered_in_another_order_is_seen():
    student, network, x = made("siamese", "channel")
    lowered = lower(student, network).model
    other = copy.deepcopy(student)
    other.encode.rows.copy_(student.encode.rows.roll(1))
    with torch.no_grad(), pytest.raises(AssertionError, match="differs by"):
        assert_close_enough(lowered(x.clone()), other(x.clone()), tolerance=1e-10)


def test_time_is_that_of_all_calls(monkeypatch):
    student, _, x = made("pyramid", "spatial")
    seconds = {(12, 12): 4.0, (6, 6): 2.0, (3, 3): 1.0}
    asked = []

    def measured(layer, form, size, threads):
        asked.append(size)
        return {PLAIN: seconds[size], "segments": seconds[size] / 2}

    monkeypatch.setattr("vfconvert.lowering.costs._measure", measured)
    table, head = CostTable(), profile(student, x).layer("tower")
    layer = student.get_submodule("tower")
    assert not table.knows(layer, head)
    assert table.costs(layer, head) == {PLAIN: 7.0, "segments": 3.5}
    assert asked == [(12, 12), (6, 6), (3, 3)]
    assert table.knows(layer, head)
    small = Call(batch=1, input_size=(3, 3), output_size=(3, 3))
    thrice = LayerProfile(names=("tower",), versatile=True, geometry=head.geometry, calls=(small,) * 3)
    assert table.costs(layer, thrice) == {PLAIN: 3.0, "segments": 1.5}
    assert len(asked) == 3
