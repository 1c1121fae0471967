"""Samples of layers are what a pass reads and gives, whatever operators write into these tensors in between."""

from __future__ import annotations

import copy
from collections import defaultdict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vfconvert.analysis.graph import trace
from vfconvert.fitting.boundary import Boundary, Filling, advance
from vfconvert.fitting.samples import SegmentSamples

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)) - 0.5


class Writes(nn.Module):
    """Operators that are statements of their own, for what they write."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last, self.relu = nn.Conv2d(8, 3, 3, padding=1), nn.ReLU(inplace=True)


class Modules(Writes):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        self.relu(y)
        z = self.second(y)
        self.relu(z)
        return self.last(z)


class Methods(Writes):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y.mul_(2)
        z = self.second(y)
        z.clamp_(min=0)
        return self.last(z + y)


class Views(Writes):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        F.relu(y.flatten(1), inplace=True)
        return self.last(self.second(y))


class Repeated(Writes):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for _ in range(3):
            self.relu(y)
            y = self.second(y)
        return self.last(y)


class WrittenBetweenReaders(Writes):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.second(y)
        y.relu_()
        return z.mean((1, 2, 3), keepdim=True) + self.last(y)


class WrittenInput(Writes):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(3)
        return self.last(self.second(self.first(x))) + x


NETWORKS = (Modules, Methods, Views, Repeated, WrittenBetweenReaders, WrittenInput)


@torch.no_grad()
def seen_in(network: nn.Module) -> tuple[dict[str, list[tuple[Tensor, Tensor]]], Tensor]:
    """What each layer reads and gives in each of its calls, and what the network gives."""
    found = defaultdict(list)

    def note(name: str):
        return lambda module, inputs, output: found[name].append((inputs[0].clone(), output.clone()))

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    output = network(IMAGES.clone())
    for hook in hooks:
        hook.remove()
    return found, output


@pytest.mark.parametrize("apart", [False, True], ids=["the teacher alone", "a student too"])
@pytest.mark.parametrize("residual", [False, True], ids=["outputs", "residual targets"])
@pytest.mark.parametrize("build", NETWORKS)
@torch.no_grad()
def test_samples_are_what_a_pass_reads_and_gives(build, residual, apart):
    teacher = build().eval()
    student = copy.deepcopy(teacher) if apart else teacher
    network = trace(teacher, IMAGES[:2])
    expected, output = seen_in(teacher)
    entry = Boundary.of(IMAGES)
    checked = set()
    for segment in network.segments:
        calls = defaultdict(list)
        for node in segment.nodes:
            if node.target in expected:
                calls[node.target].append(node)
        for name, nodes in calls.items():
            samples = SegmentSamples(network, segment, teacher, student, entry, entry, IMAGES, residual)
            found = list(samples.of(nodes, 64))
            assert len(found) == len(expected[name])
            for sample, (given, made) in zip(found, expected[name], strict=True):
                torch.testing.assert_close(sample.inputs, given)
                torch.testing.assert_close(sample.targets, made)
            checked.add(name)
        entry = advance(teacher, segment, network.source, IMAGES, entry, 2)
    assert checked == {"first", "second", "last"}
    torch.testing.assert_close(entry[:5], output)


@pytest.mark.parametrize("build", NETWORKS)
@torch.no_grad()
def test_what_leaves_a_segment_beside_the_samples_is_what_leaves_it(build):
    teacher = build().eval()
    network = trace(teacher, IMAGES[:2])
    entry, compared = Boundary.of(IMAGES), 0
    for segment in network.segments:
        exit_ = advance(teacher, segment, network.source, IMAGES, entry, 2)
        names = [str(node.target) for node in segment.nodes if node.op == "call_module"]
        calls = {name: [node for node in segment.nodes if node.target == name] for name in names if name != "relu"}
        if calls and segment.exit.op != "output":
            leaving = Filling(len(IMAGES))
            samples = SegmentSamples(network, segment, teacher, teacher, entry, entry, IMAGES, False)
            for _ in samples.of_each(list(calls.values()), 4, leaving.add):
                pass
            torch.testing.assert_close(leaving.result()[:5], exit_[:5], rtol=0, atol=1e-5)
            compared += 1
        entry = exit_
    assert compared == {Modules: 2, Methods: 2, Views: 2, Repeated: 2, WrittenBetweenReaders: 1, WrittenInput: 0}[build]
