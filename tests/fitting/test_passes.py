"""Passes that leave out what cannot have changed give what whole passes give, and leave the network as it was."""

import pytest
import torch
from torch import Tensor, nn

from vfconvert.fitting.passes import Passes
from vfconvert.fitting.untraced import WholePassSamples, entry_of, largest_activation

IMAGES = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
LAYERS = ("trunk.first.0", "trunk.first.1", "trunk.second.0", "neck", "head.0")
MIXED = ("head.0", "trunk.first.0", "neck", "trunk.second.0")


class Counted(nn.Conv2d):
    """Notes how often it is computed."""

    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.__class__.runs += 1
        return super().forward(x)


def conv(channels: int = 4) -> Counted:
    return Counted(channels, 4, 3, padding=1)


class Levels(nn.Module):
    """A trunk, a neck that is called on two levels and changed in place after, a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        first, second = nn.Sequential(conv(3), conv(), nn.ReLU(inplace=True)), nn.Sequential(conv(), nn.ReLU())
        self.trunk = nn.ModuleDict({"first": first, "second": second})
        self.neck, self.head = conv(), nn.Sequential(conv(), nn.ReLU())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.trunk["first"](x)
        coarse = self.trunk["second"](fine)
        one = self.neck(fine).relu_()
        return {"fine": one, "coarse": self.head(self.neck(coarse).relu_() + one)}


def networks() -> tuple[Levels, Levels]:
    teacher, student = Levels().eval(), Levels().eval()
    return teacher, student


@torch.no_grad()
def fit_pretended(passes: tuple[Passes, Passes], pending: set[str], batch: int = 2, layers=LAYERS) -> list[Tensor]:
    """Samples of layer after layer, each of which is changed once it has been seen."""
    found = []
    for name in layers:
        samples = list(WholePassSamples(*passes, IMAGES).of(name, batch))
        found += [tensor.clone() for sample in samples for tensor in (sample.inputs, sample.targets)]
        passes[1].network.get_submodule(name).weight.mul_(1.5).add_(0.1)
        pending.discard(name)
    return found


class Forgetful(Passes):
    """Computes everything."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, most_bytes=-1)


@pytest.mark.parametrize("layers", [LAYERS, LAYERS[::-1], MIXED], ids=["in order", "from the end", "mixed"])
def test_samples_are_those_of_whole_passes_and_take_fewer_computations(layers):
    teacher, student = networks()
    Counted.runs = 0
    expected = fit_pretended((Forgetful(teacher), Forgetful(student)), set(), layers=layers)
    all_runs, Counted.runs = Counted.runs, 0
    teacher, student = networks()
    pending = set(layers)
    got = fit_pretended((Passes(teacher), Passes(student, pending)), pending, layers=layers)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert Counted.runs < (0.8 if layers is LAYERS else 0.9) * all_runs


def test_a_layer_that_changes_without_being_pending_is_taken_for_settled():
    """So the comparison above can fail."""
    expected = fit_pretended(tuple(map(Forgetful, networks())), set(), layers=MIXED)
    got = fit_pretended(tuple(map(Passes, networks())), set(), layers=MIXED)
    assert not all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


@torch.no_grad()
def test_the_outermost_settled_submodules_are_kept_and_no_more_than_there_is_room_for():
    teacher, _ = networks()
    passes = Passes(teacher)
    list(WholePassSamples(passes, passes, IMAGES).of("head.0", 5))
    Counted.runs = 0
    list(WholePassSamples(passes, passes, IMAGES).of("head.0", 5))
    assert Counted.runs == 1
    assert passes._held == 4 * 5 * 4 * 36 * 4  # both of the trunk, and two calls of the neck
    small = Passes(teacher, most_bytes=3 * 5 * 4 * 36 * 4)
    list(WholePassSamples(small, small, IMAGES).of("head.0", 5))
    Counted.runs = 0
    list(WholePassSamples(small, small, IMAGES).of("head.0", 5))
    assert Counted.runs == 2
    assert small._held == 3 * 5 * 4 * 36 * 4


@torch.no_grad()
def test_fewer_images_at_a_time_let_go_of_what_was_kept_of_more():
    teacher, _ = networks()
    passes = Passes(teacher)
    samples = WholePassSamples(passes, passes, IMAGES)
    for size in (4, 2):
        found = [sample.targets for sample in samples.of("head.0", size)]
        torch.testing.assert_close(torch.cat(found), torch.cat([s.targets for s in samples.of("head.0", size)]))
    assert {size for _, size in passes._batches} == {2, 1}
    assert passes._held == 4 * 5 * 4 * 36 * 4


class Taps(nn.Module):
    """`kind` says what its body leaves behind besides its result."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.last = Body(kind), nn.Conv2d(4, 4, 1)
        if kind == "hook":
            self.body.conv.register_forward_hook(lambda module, inputs, output: vars(self).update(seen=output))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        behind = {"attribute": lambda: self.body.seen, "hook": lambda: self.seen, "input": lambda: x}
        return self.last(y + behind[self.body.kind]().mean((1, 2, 3), keepdim=True))


class Body(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.kind == "attribute":
            self.seen = y
        if self.kind == "input":
            x.add_(1)
        return y


@pytest.mark.parametrize("kind", ["attribute", "hook", "input"])
@torch.no_grad()
def test_what_leaves_more_behind_than_a_result_is_computed_every_time(kind):
    network = Taps(kind).eval()
    passes = Passes(network)
    found = [
        torch.cat([sample.targets for sample in WholePassSamples(passes, passes, IMAGES).of("last", 2)])
        for _ in range(3)
    ]
    expected = torch.cat([network(images.clone()) for images in IMAGES.split(2)])
    for each in found:
        torch.testing.assert_close(each, expected, rtol=0, atol=0)


@torch.no_grad()
def test_a_part_is_given_what_whole_passes_give_it_and_the_network_is_left_as_it_was():
    teacher, _ = networks()
    passes = Passes(teacher)
    before = {name: dict(vars(module)) for name, module in teacher.named_modules()}
    for _ in range(2):
        given = entry_of(passes, "trunk.second", IMAGES, 2)
        torch.testing.assert_close(given, teacher.trunk["first"](IMAGES))
    teacher.neck.forward = teacher.neck.forward  # one that is there already comes back
    own = vars(teacher.neck)["forward"]
    list(WholePassSamples(passes, passes, IMAGES).of("head.0"))
    assert vars(teacher.neck).pop("forward") is own
    for name, module in teacher.named_modules():
        assert vars(module).keys() == before[name].keys()
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_the_largest_activation_is_that_of_any_submodule():
    assert largest_activation(nn.Sequential(nn.Conv2d(3, 8, 1), nn.MaxPool2d(2)), IMAGES[:1]) == 8 * 36
    assert largest_activation(nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 1)), IMAGES[:1]) == 108
