"""Norms found by the dataflow, cuts at single tensors, residual partners, and traces that are not believed."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.fitting.nets import DataDependent, PlainRestorer, ResidualNet, images, settled
from vfconvert.analysis.graph import trace
from vfconvert.analysis.running import needed_for, run_nodes


def test_norm_is_found_in_the_graph_not_by_order() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.norm_b, self.norm_a = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm_a(self.a(x)) + self.norm_b(self.b(x))

    network = trace(Crossed().eval(), images(2))
    assert network is not None
    assert network.following_norm == {"a": "norm_a", "b": "norm_b"}


def test_norm_that_is_not_the_only_reader_is_none() -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    network = trace(Read().eval(), images(2))
    assert network is not None
    assert network.following_norm == {}


def test_segments_are_blocks_and_run_as_the_network() -> None:
    model, x = settled(ResidualNet()), images(2)
    network = trace(model, x)
    assert network is not None
    layers = [
        [str(n.target) for n in s.nodes if n.op == "call_module" and "norm" not in str(n.target)]
        for s in network.segments
    ]
    assert layers == [["stem"], ["conv1", "conv2"], ["conv3", "project"], ["classifier"]]
    value = x
    with torch.no_grad():
        for segment in network.segments:
            value = run_nodes(model, segment.nodes, {segment.entry: value})[segment.exit]
        assert torch.equal(value, model(x))


def test_long_skip_from_the_input_does_not_join_all_blocks() -> None:
    network = trace(PlainRestorer().eval(), images(2, 1))
    assert network is not None
    assert len(network.segments) == 4


def test_residual_partner_is_the_other_summand() -> None:
    model = settled(ResidualNet())
    network = trace(model, images(2))
    assert network is not None
    nodes = {str(n.target): n for n in network.graph.nodes if n.op == "call_module"}
    found = network.residual_partner(nodes["norm2"], model)
    assert found is not None
    assert found[1] is network.segments[1].entry
    assert network.residual_partner(nodes["norm1"], model) is None
    project = network.residual_partner(nodes["project"], model)
    assert project is not None
    assert project[1] is nodes["norm3"]


def test_needed_nodes_leave_the_rest_out() -> None:
    model = settled(ResidualNet())
    network = trace(model, images(2))
    assert network is not None
    block = network.segments[1]
    conv1 = next(n for n in block.nodes if n.target == "conv1")
    assert [n.target for n in needed_for(model, [(conv1, None)], block.nodes)] == ["conv1"]


def test_trace_of_a_branch_on_values_is_given_up() -> None:
    assert trace(DataDependent().eval(), images(2)) is None


def test_trace_that_computes_something_else_is_not_believed() -> None:
    class Counts(nn.Module):
        """Answers differently each time: the trace keeps the first answer."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.calls = nn.Conv2d(3, 4, 1), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return F.relu(self.conv(x)) * self.calls

    assert trace(Counts().eval(), images(2)) is None
