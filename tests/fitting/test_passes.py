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
    assert {size for size, _ in passes._batches} == {2}
    assert passes._held == 4 * 5 * 4 * 36 * 4


class Taps(nn.Module):
    """`kind` says what its body leaves behind besides its result, or where it writes later."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.last = Body(kind), nn.Conv2d(4, 4, 1)
        if kind == "hook":
            self.body.conv.register_forward_hook(lambda module, inputs, output: vars(self).update(seen=output))

    def forward(self, x: Tensor) -> Tensor:
        y, behind = self.body(x), x
        if self.body.kind == "hook":
            behind = self.seen
        elif self.body.kind == "result that is the input":
            written, y = y
            written.add_(1)
        elif self.body.kind == "result given twice":
            y, behind = y
            y.add_(1)
        elif self.body.kind != "input":
            behind = self.body.left()
        return self.last(y + behind.mean((1, 2, 3), keepdim=True))


class Body(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("kept", torch.zeros(2, 4, 6, 6))
        self.seen, self.listed, self.named, self.object = None, [None], {"deep": [None]}, Holder()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.conv(x)
        if self.kind == "attribute":
            self.seen = y
        elif self.kind == "input":
            x.add_(1)
        elif self.kind == "buffer":
            self.kept = y
        elif self.kind == "written buffer":
            self.kept[: len(y)] = y
        elif self.kind == "list":
            self.listed[0] = y
        elif self.kind == "list in a dictionary":
            self.named["deep"][0] = y
        elif self.kind == "object":
            self.object.seen = y
        elif self.kind == "result that is the input":
            return x, y
        elif self.kind == "result given twice":
            return y, y
        return y

    def left(self) -> Tensor:
        """What the last call has left behind."""
        return {
            "attribute": self.seen,
            "buffer": self.kept,
            "written buffer": self.kept[:1],
            "list": self.listed[0],
            "list in a dictionary": self.named["deep"][0],
            "object": self.object.seen,
        }[self.kind]


class Holder:
    seen: Tensor | None = None


KINDS = (
    *("attribute", "hook", "input", "buffer", "written buffer", "list", "list in a dictionary", "object"),
    *("result that is the input", "result given twice"),
)


@pytest.mark.parametrize("kind", KINDS)
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


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Sequential(nn.Conv2d(3, 4, 1), Noise()), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x))


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


@torch.no_grad()
def test_what_draws_random_numbers_draws_others_in_every_pass():
    passes = Passes(Noisy().eval())
    one, other = (list(WholePassSamples(passes, passes, IMAGES).of("last", 5)) for _ in range(2))
    assert not torch.equal(one[0].inputs, other[0].inputs)
    assert [name for batch in passes._batches.values() for name, _ in batch] == ["body.0"]


class Inferring(Levels):
    """Tensors that it computes do not tell whether they were written into."""

    @torch.inference_mode()
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return super().forward(x + 0)


@torch.no_grad()
def test_a_network_in_inference_mode_is_computed_every_time():
    network = Inferring().eval()
    passes = Passes(network)
    for _ in range(2):
        (sample,) = WholePassSamples(passes, passes, IMAGES).of("head.0", 5)
        torch.testing.assert_close(sample.targets.relu(), network(IMAGES)["coarse"])
    assert passes._held == 0


def test_what_is_kept_holds_on_to_no_gradients():
    teacher, _ = networks()
    passes = Passes(teacher)
    assert not entry_of(passes, "trunk.second", IMAGES, 2).requires_grad
    kept = [output.value for batch in passes._batches.values() for output in batch.values()]
    assert len(kept) == 3
    assert not any(value.requires_grad for value in kept)


@torch.no_grad()
def test_what_is_kept_of_other_batches_makes_room_where_there_is_none():
    teacher, _ = networks()
    one_trunk = 2 * 5 * 4 * 36 * 4
    passes = Passes(teacher, most_bytes=one_trunk)
    list(WholePassSamples(passes, passes, IMAGES).of("neck", 4))
    twice = WholePassSamples(passes, passes, IMAGES, {"neck": 2})
    expected = [
        sample.targets for sample in WholePassSamples(*[Forgetful(teacher)] * 2, IMAGES, twice.calls).of("neck", 4)
    ]
    list(twice.of("neck", 4))
    Counted.runs = 0
    found = [sample.targets for sample in twice.of("neck", 4)]
    assert Counted.runs == 3 * 2  # the calls of the neck alone
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert passes._held <= one_trunk
    assert passes._most == one_trunk  # no memory has run out


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
