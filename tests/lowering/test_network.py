"""Whole networks lowered: the same outputs, the bank stored once, the products that the report gives."""

import copy

import pytest
import torch
from torch import nn

from tests.lowering.nets import WISHES, Mixed, Plain, Residual, converted
from tests.references import assert_close_enough
from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.profile import profile
from vfconvert.errors import NotAModelError
from vfconvert.lowering.choice import fastest
from vfconvert.lowering.costs import CostTable, choose, executed, products
from vfconvert.lowering.network import lower
from vfconvert.measuring.machine import processor_name
from vfconvert.nn import VersatileConv2d

NETS = {"residual": (Residual, (2, 3, 12, 12)), "mixed": (Mixed, (2, 3, 14, 14)), "plain": (Plain, (2, 1, 9, 9))}


def made(kind: str, wish: str):
    network, shape = NETS[kind]
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    return *converted(network(), x, WISHES[wish]), x


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("variant", ["segments", "full", "separate", "plain"])
def test_lowered_computes_the_same(kind, wish, variant):
    student, network, x = made(kind, wish)
    before = copy.deepcopy(student.state_dict())
    names = [name for name, module in student.named_modules() if isinstance(module, VersatileConv2d)]
    lowered = lower(student, network, dict.fromkeys(names, variant)).model
    with torch.no_grad():
        assert_close_enough(lowered(x.clone()), student(x.clone()), tolerance=1e-10)
        wider = torch.cat([x, x.flip(3)], 3)[:1]
        assert_close_enough(lowered(wider.clone()), student(wider.clone()), tolerance=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_meta_a_lost_permutation_is_seen():
    student, network, x = made("residual", "both")
    lowered = lower(student, network).model
    student.blocks[0].conv2.rows.copy_(student.blocks[0].conv2.rows.roll(1))
    with torch.no_grad(), pytest.raises(AssertionError, match="differs by"):
        assert_close_enough(lowered(x), student(x), tolerance=1e-10)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("wish", ["spatial", "channel", "both"])
def test_macs_and_numbers_of_the_lowered_network(kind, wish):
    student, network, x = made(kind, wish)
    layers = profile(student, x)
    variants = choose(student, layers, network.following_norm, None)
    lowered = lower(student, network, variants)
    expected = count_macs(student, x).total
    for layer in layers.layers:
        if layer.versatile:
            plain = products(student.get_submodule(layer.name))["plain"]
            expected -= int(plain) * layer.output_positions - executed(student, layers, lowered.variants)[layer.name]
    assert count_macs(lowered.model, x).total == expected
    banks = {id(m): m.weight.numel() for m in student.modules() if isinstance(m, VersatileConv2d)}
    large = sum(p.numel() for p in lowered.model.parameters() if p.dim() == 4)
    kept = sum(m.weight.numel() for m in student.modules() if type(m) is nn.Conv2d)
    columns = sum(p.numel() for p in lowered.model.parameters() if p.dim() == 4 and p.shape[1:].numel() == 1)
    assert large <= sum(banks.values()) + kept + columns


def test_permutations_are_absorbed_where_nothing_else_writes():
    student, network, x = made("plain", "channel")
    lowered = lower(student, network).model
    gathers = [node for node in lowered.graph.nodes if node.target is torch.index_select]
    assert gathers == []
    assert_close_enough(lowered(x), student(x), tolerance=1e-10)


def test_positive_ratios_are_left_to_the_next_layer():
    student, network, x = made("plain", "channel")
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, VersatileConv2d):
                module.scale.abs_().clamp_(0.2, 2)
    lowered = lower(student, network).model
    norms = [node for node in lowered.graph.nodes if node.target is nn.functional.batch_norm]
    assert norms == []
    assert_close_enough(lowered(x), student(x), tolerance=1e-10)


def test_costs_are_measured_once_and_kept(tmp_path, monkeypatch):
    student, network, x = made("residual", "both")
    student, x = student.float(), x[:1].float()
    table = CostTable(threads=1)
    layers = profile(student, x)
    chosen = choose(student, layers, network.following_norm, table)
    assert set(chosen) == {layer.name for layer in layers.layers if layer.versatile}
    assert all(min(costs.values()) > 0 and "plain" in costs for costs in table.measured.values())
    table.write(tmp_path / "costs.json")
    again = CostTable.read(tmp_path / "costs.json")
    monkeypatch.setattr("vfconvert.lowering.costs._measure", lambda *_: pytest.fail("measured again"))
    assert choose(student, layers, network.following_norm, again) == chosen


def test_the_table_decides():
    student, network, x = made("residual", "both")
    layers = profile(student, x)
    table = CostTable()
    for layer in layers.layers:
        if layer.versatile:
            module = student.get_submodule(layer.name)
            norm = student.get_submodule(network.following_norm[layer.name])
            name = {"1": "plain"}.get(layer.name.split(".")[1], "separate")
            costs = dict.fromkeys(("plain", "segments", "full", "separate"), 2.0) | {name: 1.0}
            table.measured[_key(table, module, layer, norm)] = costs
    inference = fastest(student, network, layers, table)
    assert {name.split(".")[1]: form for name, form in inference.variants.items()} == {
        "0": "separate",
        "1": "plain",
        "2": "separate",
    }
    with torch.no_grad():
        assert_close_enough(inference.model(x), student(x), tolerance=1e-10)


def _key(table: CostTable, module, layer, norm) -> str:
    from vfconvert.lowering.costs import _key as key
    from vfconvert.lowering.form import form_of

    return key(module, form_of(module, norm), layer.calls[0].input_size, table.threads)


def test_a_table_that_is_none_is_refused(tmp_path):
    path = tmp_path / "costs.json"
    rows = ('{"full": 1.0}', '{"plain": 1.0, "foo": 1.0}', '{"plain": -1.0}', '{"plain": NaN}')
    tables = [f'{{"schema_version": 1, "threads": 1, "layers": {{"a": {row}}}}}' for row in rows]
    for content in (*tables, "", "[]", '{"schema_version": 9, "threads": 1, "layers": {}}', '{"schema_version": 1}'):
        path.write_text(content)
        with pytest.raises(NotAModelError, match="no table of layer costs"):
            CostTable.read(path)


def test_a_table_of_another_machine_takes_in_nothing_measured_here(tmp_path, monkeypatch):
    student, network, x = made("residual", "both")
    student, x = student.float(), x[:1].float()
    layers, path = profile(student, x), tmp_path / "costs.json"
    CostTable(machine="an ARM", networks={"net": 0.5}).write(path)
    table = CostTable.read(path)
    assert table.foreign
    assert table.networks == {"net": 0.5}
    monkeypatch.setattr("vfconvert.lowering.costs._measure", lambda *_: {"plain": 1.0, "separate": 0.5})
    assert set(choose(student, layers, network.following_norm, table).values()) == {"separate"}
    assert not table.measured
    assert table.known == 1
    path.write_text(path.read_text().replace("an ARM", processor_name()))
    own = CostTable.read(path)
    choose(student, layers, network.following_norm, own)
    assert not own.foreign
    assert own.measured
    path.write_text(path.read_text().replace("0.5", "-1"))
    with pytest.raises(NotAModelError, match="seconds of networks"):
        CostTable.read(path)


class PreActivation(nn.Module):
    """Overwrites its input, which the skip reads again."""

    def __init__(self, forward: str) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.b, self.c = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.relu, self.kind = nn.ReLU(inplace=True), forward
        self.a_shift = nn.Parameter(torch.randn(1, 16, 1, 1))

    def forward(self, x):
        x = self.a(self.stem(x))
        if self.kind == "skip":
            return self.c(x + self.b(self.relu(x)))
        if self.kind == "statement":
            x.clamp_(0, 1)
            self.relu(x)
            return self.b(x)
        if self.kind == "keyword":
            return self.b(torch.sigmoid(input=x))
        return self.b(x + self.a_shift)


@pytest.mark.parametrize("kind", ["skip", "statement", "keyword", "names"])
@pytest.mark.parametrize("wish", ["spatial", "channel"])
def test_networks_that_overwrite_or_share_names(kind, wish):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    student, network = converted(PreActivation(kind), x, WISHES[wish])
    lowered = lower(student, network)
    assert (set(lowered.variants.values()) == {"plain"}) == (kind in ("skip", "statement"))
    with torch.no_grad():
        assert_close_enough(lowered.model(x.clone()), student(x.clone()), tolerance=1e-10)


class TwoBatches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        return self.a(self.stem(torch.cat([x, x.flip(3)], 0))).relu()


def test_a_layer_of_another_batch_is_plain_and_says_so():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    student, network = converted(TwoBatches(), x, WISHES["channel"])
    lowered = lower(student, network)
    assert lowered.variants == {"a": "plain"}
    assert_close_enough(lowered.model(x), student(x), tolerance=1e-10)


def test_factors_are_applied_by_norms_that_every_torch_takes_and_divide_by_one():
    """Some releases refuse `eps` of 0."""
    student, network, _ = made("mixed", "both")
    names = [name for name, module in student.named_modules() if isinstance(module, VersatileConv2d)]
    lowered = lower(student, network, dict.fromkeys(names, "segments")).model
    norms = [node.args for node in lowered.graph.nodes if node.target is torch.nn.functional.batch_norm]
    variances = {float(value): eps for _, _, at, *_, eps in norms for value in getattr(lowered, at.target).unique()}
    assert all(eps > 0 for *_, eps in norms)
    assert any(variance + eps == 1 and variance != 1 for variance, eps in variances.items())


@pytest.mark.parametrize("factor", [0.0, 1e-40, 1e-9, -1e-9, 1e9])
def test_factors_far_apart_stay_finite(factor):
    torch.manual_seed(0)
    x = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    student, network = converted(Plain(), x, WISHES["channel"])
    student, x = student.float(), x.float()
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, VersatileConv2d):
                module.scale.abs_().clamp_(0.2, 2)
                module.scale[::3] *= factor
    lowered = lower(student, network).model
    largest = max(float(p.detach().abs().max()) for p in lowered.parameters())
    assert largest < 1e3 * max(1.0, abs(factor))
    with torch.no_grad():
        assert_close_enough(lowered(x), student(x), tolerance=1e-4)
