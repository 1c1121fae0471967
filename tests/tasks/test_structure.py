"""Outputs walked side by side, and the loss that distils them."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from vfconvert.errors import TrainingError
from vfconvert.fitting.reconstruct import output_loss
from vfconvert.tasks.structure import (
    VaryingOutputError,
    distillation_loss,
    main_tensor,
    matched,
    of_one_image,
    sizes_of,
    varies,
)

ONE, TWO = torch.ones(2, 3), torch.ones(2, 4, 5, 5)


class Pair(NamedTuple):
    boxes: Tensor
    scores: Tensor


@dataclass
class Output:
    logits: Tensor
    hidden: tuple[Tensor, ...]
    note: str | None = None


def names(got: object, wanted: object) -> list[str]:
    return [name for name, _, _ in matched(got, wanted)]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (ONE, ["output"]),
        ([ONE, (TWO,)], ["0", "1.0"]),
        ({"out": ONE, "aux": {"deep": [TWO]}}, ["out", "aux.deep.0"]),
        (OrderedDict(out=ONE), ["out"]),
        (Pair(ONE, TWO), ["boxes", "scores"]),
        (Output(ONE, (TWO, ONE)), ["logits", "hidden.0", "hidden.1"]),
        ((ONE, None, 3, "x", True, ONE.argmax(1)), ["0"]),
        (None, []),
    ],
    ids=["tensor", "nest", "dict", "ordered", "named-tuple", "dataclass", "passed-over", "nothing"],
)
def test_matched_names_every_floating_tensor(output: object, expected: list[str]) -> None:
    assert names(output, output) == expected


def test_matched_pairs_by_name_whatever_the_order_and_the_kind() -> None:
    got = OrderedDict(b=TWO + 1, a=ONE + 1)
    pairs = {name: (ours, theirs) for name, ours, theirs in matched(got, {"a": ONE, "b": TWO})}
    assert list(pairs) == ["a", "b"]
    assert pairs["a"][0] is got["a"]
    assert pairs["b"][1] is TWO
    assert names((ONE, TWO), Pair(ONE, TWO)) == ["boxes", "scores"]


@pytest.mark.parametrize(
    ("got", "wanted", "said"),
    [
        (
            ONE,
            TWO,
            r"^output of the network: got tensor \(2, 3\) of float32, expected tensor \(2, 4, 5, 5\) of float32",
        ),
        ({"a": [ONE]}, {"a": [TWO]}, r"^a\.0 of the network: got tensor \(2, 3\)"),
        ({"a": ONE}, {"a": ONE, "b": ONE}, r"got dict with a, expected dict with a, b as from the teacher; give both"),
        ([ONE], [ONE, ONE], "got list of 1, expected list of 2"),
        ({"0": ONE}, [ONE], "got dict with 0, expected list of 1"),
        ({"aux": None}, {"aux": ONE}, r"^aux of the network: got None, expected tensor"),
        ({"aux": ONE}, {"aux": None}, r"^aux of the network: got tensor .*expected None"),
        (3, [ONE], "got int, expected list of 1"),
        (ONE.long(), ONE, r"got tensor \(2, 3\) of int64"),
        (Output(ONE, ()), Pair(ONE, ONE), "got Output with logits, hidden, note, expected Pair with boxes, scores"),
    ],
)
def test_matched_refuses_what_differs_and_says_where(got: object, wanted: object, said: str) -> None:
    with pytest.raises(TrainingError, match=said) as raised:
        names(got, wanted)
    assert "\n" not in str(raised.value)


def detections(*counts: int) -> list[dict[str, Tensor]]:
    return [
        {"boxes": torch.rand(n, 4), "labels": torch.ones(n, dtype=torch.int64), "scores": torch.rand(n)} for n in counts
    ]


@pytest.mark.parametrize(
    "output",
    [
        detections(2, 5),
        detections(3, 3),
        detections(1),
        detections(0, 0),
        {"found": detections(2, 5)},
        [torch.rand(2, 6), torch.rand(3, 6)],
    ],
    ids=["counts", "same-count", "one-image", "nothing-found", "nested", "rows"],
)
def test_detections_vary_and_are_refused_in_one_line(output: object) -> None:
    assert varies(output)
    with pytest.raises(VaryingOutputError, match=r"^the network's outputs vary .*match the features of the converted"):
        names(output, output)


def test_the_fit_does_not_train_on_detections() -> None:
    boxes = torch.rand(3, 4, requires_grad=True)
    scores = torch.rand(3)
    assert not output_loss([{"boxes": boxes, "scores": scores}], detections(3)).requires_grad
    assert output_loss({"boxes": boxes, "scores": scores}, {"boxes": torch.rand(3, 4), "scores": scores}).requires_grad


@pytest.mark.parametrize(
    "output",
    [
        ONE,
        None,
        [],
        [ONE, TWO],
        [torch.rand(1, 8, 4, 4), torch.rand(1, 8, 2, 2)],
        [torch.rand(8, 10), torch.rand(8, 3)],
        (torch.rand(8, 64), torch.rand(512, 64)),
        [{"pred_logits": torch.rand(2, 9, 5), "pred_boxes": torch.rand(2, 9, 4)}] * 2,
        Pair(torch.rand(8, 4), torch.rand(8)),
    ],
    ids=["tensor", "none", "empty", "list", "pyramid", "heads", "codebook", "auxiliary", "pair"],
)
def test_other_outputs_do_not_vary(output: object) -> None:
    assert not varies(output)


def test_what_was_found_in_one_image_stands_for_its_list() -> None:
    (found,) = output = detections(3)
    assert of_one_image(output) is found
    assert of_one_image({"found": output, "map": ONE}) == {"found": found, "map": ONE}
    assert of_one_image((output, ONE)) == (found, ONE)
    two = detections(2, 5)
    assert of_one_image(two) == two
    assert of_one_image([{"logits": TWO}]) == [{"logits": TWO}]
    assert of_one_image(ONE) is ONE


def test_main_tensor_prefers_the_names_of_the_main_output() -> None:
    assert main_tensor({"aux": TWO, "out": ONE}) is ONE
    assert main_tensor({"loss": ONE.sum(), "logits": TWO}) is TWO
    assert main_tensor([None, ONE.long(), (TWO, ONE)]) is TWO
    assert main_tensor({"out": None, "aux": ONE}) is ONE
    assert main_tensor(["x", 3]) is None


def test_rows_of_logits_count_the_divergence_at_the_temperature() -> None:
    # at temperature 2 the teacher says softmax(ln 3, 0) = (3/4, 1/4), the student (1/2, 1/2)
    wanted, got = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(distillation_loss(got, wanted, 2.0)) == pytest.approx(4 * divergence, rel=1e-5)
    assert float(distillation_loss(got, wanted, 1.0)) != pytest.approx(4 * divergence, rel=0.05)
    assert float(distillation_loss(wanted + 7, wanted, 2.0)) == pytest.approx(0, abs=1e-6)


def test_other_tensors_count_the_error_over_the_teachers_variance() -> None:
    wanted = torch.tensor([[[[0.0, 2.0]]]])  # variance 1
    assert float(distillation_loss(wanted + 0.5, wanted, 2.0)) == pytest.approx(0.25)
    assert float(distillation_loss((wanted + 0.5, 3), (wanted, 3), 2.0)) == pytest.approx(0.25)
    both = distillation_loss({"a": 3 * wanted, "b": wanted + 1}, {"a": wanted, "b": wanted}, 2.0)
    assert float(both) == pytest.approx(8 + 1)


def test_maps_are_logits_of_every_pixel_only_where_the_task_says_so() -> None:
    rows, other = torch.randn(12, 5) * 3, torch.randn(12, 5) * 3
    maps = [logits.reshape(2, 6, 5).movedim(2, 1).reshape(2, 5, 2, 3) for logits in (other, rows)]
    expected = float(distillation_loss(other, rows, 3.0))
    assert float(distillation_loss(*maps, 3.0, pixelwise=True)) == pytest.approx(expected, rel=1e-5)
    assert float(distillation_loss(*maps, 3.0)) != pytest.approx(expected, rel=0.01)
    assert float(distillation_loss(maps[1] + 7, maps[1], 3.0, pixelwise=True)) == pytest.approx(0, abs=1e-5)


def test_half_precision_is_widened_and_gradients_pass() -> None:
    got = torch.zeros(4, 10, dtype=torch.bfloat16, requires_grad=True)
    wanted = 3 * torch.eye(10, dtype=torch.bfloat16)[:4]
    loss = distillation_loss({"out": got}, {"out": wanted}, 2.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert got.grad is not None
    assert float(got.grad.abs().sum()) > 0


def test_nothing_floating_counts_nothing_and_a_temperature_is_positive() -> None:
    assert not distillation_loss(ONE.long(), ONE.long(), 2.0).requires_grad
    with pytest.raises(TrainingError, match=r"^the distillation temperature is 0, expected more than 0"):
        distillation_loss(ONE, ONE, 0)


@pytest.mark.parametrize("factor", [0.1, 100.0])
def test_with_sizes_the_loss_of_a_batch_is_the_mean_of_its_halves(factor):
    generator = torch.Generator().manual_seed(4)
    wanted = {"rows": factor * torch.randn(8, 5, generator=generator), "map": torch.randn(8, 2, 3, generator=generator)}
    got = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in wanted.items()}
    sizes = sizes_of(wanted)
    assert (
        sizes["rows"] is None if factor > 1 else sizes["rows"] == pytest.approx(float(wanted["rows"].var(correction=0)))
    )

    def loss(part, **given):
        return float(
            distillation_loss(*({k: t[part] for k, t in each.items()} for each in (got, wanted)), 2.0, **given)
        )

    halves = [loss(slice(0, 4), sizes=sizes), loss(slice(4, 8), sizes=sizes)]
    assert loss(slice(0, 8), sizes=sizes) == pytest.approx(sum(halves) / 2, rel=1e-5)
    assert loss(slice(0, 8), sizes=sizes) == pytest.approx(loss(slice(0, 8)), rel=1e-5)
    without = [loss(slice(0, 4)), loss(slice(4, 8))]
    assert loss(slice(0, 8)) != pytest.approx(sum(without) / 2, rel=1e-5)
