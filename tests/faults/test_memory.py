"""Memory that runs out in the fit: the same again with fewer images at once, and a word about it."""

import pytest
import torch

from tests.faults import starving
from vfconvert.fitting import sweep
from vfconvert.fitting.options import FitOptions
from vfconvert.nn import VersatileConv2d
from vfconvert.portions import Portion
from vfconvert.verification.agreement import predict

NO_ROOM = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."


def at_most(count: int, error: Exception, sizes: list[int]):
    """A forward hook of a network that has memory for so many images."""

    def look(module, inputs):
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > count:
            raise error

    return look


def test_portion_halves_until_it_fits_and_stays_there():
    tried, portion = [], Portion(24)

    def compute(size):
        tried.append(size)
        if size > 3:
            raise RuntimeError(NO_ROOM)
        return size

    assert portion.fitted(compute) == 3
    assert portion.fitted(compute) == 3
    assert tried == [24, 12, 6, 3, 3]
    assert "for 24 images at once in the fit: 3 at a time" in portion.note("the fit")[0]
    assert Portion(8).note("the fit") == ()


@pytest.mark.parametrize("error", [RuntimeError(NO_ROOM), MemoryError("no"), torch.OutOfMemoryError("no")])
def test_one_image_that_does_not_fit_is_an_error(error):
    def never(_):
        raise error

    with pytest.raises(type(error), match=r"no|allocate"):
        Portion(4).fitted(never)


def test_other_errors_are_not_tried_again():
    tried = []

    def wrong(size):
        tried.append(size)
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Portion(4).fitted(wrong)
    assert tried == [4]


def test_portion_draws_the_same_numbers_again():
    def drawn(fails):
        generator = torch.Generator().manual_seed(1)

        def compute(size):
            found = torch.randn(3, generator=generator)
            if size > fails:
                raise MemoryError
            return found

        return Portion(4).fitted(compute, generator)

    assert torch.equal(drawn(fails=4), drawn(fails=1))


@pytest.mark.parametrize("traced", [True, False])
def test_fit_that_falls_back_is_that_of_few_images_at_once(monkeypatch, traced):
    options = FitOptions(block_steps=3, output_steps=3, batch=8)
    if not traced:
        monkeypatch.setattr(starving, "compress", lambda model, _, *rest: sweep.compress(model, None, *rest))
    sizes: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(sweep, "usual_batch", lambda *_: 4)
        patched.setattr(sweep, "Portion", lambda most: Portion(min(most, 4)))
        wanted = starving.fit(side=12, width=8, options=options)
    assert wanted.notes == ()

    def with_little(forward):
        def little(module, x):
            sizes.append(len(x))
            if len(x) > 4:
                raise RuntimeError(NO_ROOM)
            return forward(module, x)

        return little

    for kind in (torch.nn.Conv2d, VersatileConv2d):
        monkeypatch.setattr(kind, "forward", with_little(kind.forward))
    got = starving.fit(side=12, width=8, options=options)
    assert max(sizes) == 32
    assert [note.partition(":")[0] for note in got.notes] == [
        "memory did not suffice for 32 images at once in the fit",
        "memory did not suffice for 8 images at once in the reconstruction",
    ]
    assert got.unexplained == wanted.unexplained
    for name, value in wanted.model.state_dict().items():
        torch.testing.assert_close(got.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_predict_falls_back(monkeypatch):
    model, images, sizes = starving.Wide(4).eval(), torch.randn(7, 3, 8, 8), []
    wanted = predict(model, images, 7)
    hook = model.register_forward_pre_hook(at_most(2, torch.OutOfMemoryError("CUDA out of memory"), sizes))
    torch.testing.assert_close(predict(model, images, 7), wanted)
    hook.remove()
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
