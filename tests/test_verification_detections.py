"""A file of a detector passes for equal detections in any order, and fails for every kind of difference."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.detectors import Places
from vfconvert.errors import ParityError
from vfconvert.exporting.onnx import export_onnx
from vfconvert.verification import image_with_detections, verify_detections

IMAGES = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Found = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> Places:
    return Places().eval()


@pytest.fixture(scope="module")
def path(model: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("detections") / "model.onnx"
    export_onnx(model, IMAGES[:1], file, metadata={}, varying=True)
    return file


class Changed(nn.Module):
    """The network with something done to what it finds in an image."""

    def __init__(self, model: nn.Module, change: Callable[[Found], Found]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: Tensor) -> list[Found]:
        return [self.change(each) for each in self.model(x)]


def changed(name: str, row: int, by: float) -> Callable[[Found], Found]:
    def change(found: Found) -> Found:
        tensor = found[name].clone()
        tensor.view(len(tensor), -1)[row, 0] += by
        return {**found, name: tensor}

    return change


def rows(order: Callable[[int], list[int]]) -> Callable[[Found], Found]:
    return lambda found: {name: tensor[order(len(tensor))] for name, tensor in found.items()}


def swapped(name: str) -> Callable[[Found], Found]:
    """One output of the first two detections, each at the other's place."""
    return lambda found: {**found, name: found[name][[1, 0, *range(2, len(found[name]))]]}


def test_the_counts_differ_between_the_images(model):
    counts = {len(model(image)[0]["boxes"]) for image in torch.split(IMAGES, 1)}
    assert len(counts) > 2
    assert min(counts) > 2


def test_equal_detections_pass_and_name_their_figures(model, path):
    parity = verify_detections(path, model, IMAGES)
    assert parity.batch_sizes == (1,)
    assert [each.output for each in parity.comparisons] == ["boxes", "scores", "labels", "masks"] * 5
    assert 0 < parity.relative_error < 1e-5
    assert parity.runtime == "onnxruntime"


def test_their_order_is_not_compared(model, path):
    backwards = Changed(model, rows(lambda count: list(range(count))[::-1]))
    assert verify_detections(path, backwards, IMAGES).relative_error < 1e-5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(changed("boxes", 0, 0.01), "'boxes' of the .* objects: max", id="a box that is off"),
        pytest.param(changed("scores", 0, 0.001), "'scores' of the .* objects: max", id="a wrong score"),
        pytest.param(changed("labels", 1, 1), "'labels' of the .* objects: max", id="a wrong label"),
        pytest.param(changed("masks", 2, 0.001), "'masks' of the .* objects: max", id="a wrong mask"),
        pytest.param(swapped("scores"), "'(boxes|scores|masks)' of the", id="scores of other boxes"),
        pytest.param(rows(lambda count: list(range(count))[1:]), "the file finds .* objects, the converted", id="more"),
        pytest.param(rows(lambda count: [0, *range(count)]), "the file finds .* objects, the converted", id="lost"),
        pytest.param(rows(lambda count: [0, 0, *range(2, count)]), "'.*' of the .* objects", id="one twice"),
        pytest.param(lambda found: {**found, "more": found["scores"]}, "got outputs boxes, scores", id="names"),
        pytest.param(lambda found: {**found, "masks": found["masks"][:, :1]}, "'masks': got .* expected", id="shape"),
        pytest.param(lambda found: {**found, "labels": found["labels"].float()}, "'labels': got", id="kind"),
        pytest.param(changed("boxes", 0, float("inf")), "the converted network gives numbers .* not finite", id="inf"),
    ],
)
def test_every_difference_fails(model, path, change, said):
    with pytest.raises(ParityError, match=said):
        verify_detections(path, Changed(model, change), IMAGES)


def test_a_difference_in_a_later_image_fails(model, path):
    seen = []

    def in_the_third(found: Found) -> Found:
        seen.append(found)
        return changed("boxes", 0, 1.0)(found) if len(seen) >= 3 else found

    with pytest.raises(ParityError, match=r"^image 2: 'boxes' .*write --format safetensors"):
        verify_detections(path, Changed(model, in_the_third), IMAGES)


class OnTheEdge(nn.Module):
    """Loses its first detection in an image of `tipped` as it is, but none after the least noise."""

    def __init__(self, model: nn.Module, tipped: Tensor) -> None:
        super().__init__()
        self.model, self.tipped = model, tipped

    def forward(self, x: Tensor) -> list[Found]:
        start = 1 if any(torch.equal(x[0], each) for each in self.tipped) else 0
        return [{name: tensor[start:] for name, tensor in each.items()} for each in self.model(x)]


def test_images_that_rounding_decides_are_passed_over(model, path):
    parity = verify_detections(path, OnTheEdge(model, IMAGES[:2]), IMAGES)
    assert len(parity.comparisons) == 4 * 5


def test_rounding_excuses_no_more_than_what_it_decides(model, path):
    """Of three that are lost one comes back after noise: two are not explained."""

    class Lost(OnTheEdge):
        def forward(self, x: Tensor) -> list[Found]:
            start = 3 if any(torch.equal(x[0], each) for each in self.tipped) else 2
            return [{name: tensor[start:] for name, tensor in each.items()} for each in self.model(x)]

    with pytest.raises(ParityError, match=r"^image 0: the file finds"):
        verify_detections(path, Lost(model, IMAGES), IMAGES)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(changed("labels", 5, 1), id="a wrong label"),
        pytest.param(changed("boxes", 5, 0.1), id="a box that is off"),
        pytest.param(rows(lambda count: [*range(4), *range(6, count)]), id="two more lost"),
        pytest.param(rows(lambda count: []), id="all lost"),
    ],
)
def test_what_rounding_decides_does_not_excuse_something_else(model, path, change):
    """In images in which a detection is on the edge, the file differs besides in one that is not."""
    with pytest.raises(ParityError, match=r"^image 0: "):
        verify_detections(path, OnTheEdge(Changed(model, change), IMAGES[:7]), IMAGES)


def test_numbers_that_are_not_finite_are_refused_in_every_image(model, path):
    broken = Changed(OnTheEdge(model, IMAGES), changed("boxes", 3, float("nan")))
    with pytest.raises(ParityError, match="the converted network gives numbers that are not finite"):
        verify_detections(path, broken, IMAGES)


def test_where_rounding_decides_all_nothing_is_compared(model, path):
    with pytest.raises(ParityError, match="what rounding decides in 8: its file cannot be compared"):
        verify_detections(path, OnTheEdge(model, IMAGES), IMAGES)


def test_where_nothing_is_found_nothing_is_compared(model, path):
    dark = torch.zeros(3, 3, 6, 6)
    nothing = Changed(model, rows(lambda _: []))
    empty = Places().eval()
    with torch.no_grad():
        empty.scores.bias.fill_(-1e3)
    export_onnx(empty, dark[:1], path.with_name("empty.onnx"), metadata={}, varying=True)
    with pytest.raises(ParityError, match="finds nothing in 3 of 3 images"):
        verify_detections(path.with_name("empty.onnx"), nothing, dark)


class Features(Places):
    """Two maps of features beside the boxes: most outputs have one row. With `backwards` the last box comes first."""

    def __init__(self, backwards: bool = False) -> None:
        super().__init__()
        self.step = -1 if backwards else 1

    def forward(self, x: Tensor) -> object:
        boxes = [each["boxes"].flip(0) if self.step < 0 else each["boxes"] for each in super().forward(x)]
        return boxes, self.body(x), self.body(x).relu()


def test_rows_are_told_from_features(tmp_path):
    export_onnx(Features().eval(), IMAGES[:1], tmp_path / "a.onnx", metadata={}, varying=True)
    backwards = Features(backwards=True).eval()
    assert verify_detections(tmp_path / "a.onnx", backwards, IMAGES).relative_error < 1e-5
    with torch.no_grad():
        backwards.boxes.bias += 0.1
    with pytest.raises(ParityError, match=r"'output_0_0' of the"):
        verify_detections(tmp_path / "a.onnx", backwards, IMAGES)


class Rows(Places):
    """Features, and boxes with their scores as one tensor for each image."""

    def forward(self, x: Tensor) -> object:
        tables = [torch.cat([each["boxes"], each["scores"][:, None]], 1) for each in super().forward(x)]
        return tables, self.body(x), x.mean()


def test_other_forms_of_such_outputs_are_compared(tmp_path):
    model = Rows().eval()
    export_onnx(model, IMAGES[:1], tmp_path / "a.onnx", metadata={}, varying=True)
    parity = verify_detections(tmp_path / "a.onnx", model, IMAGES, wanted=2)
    assert [each.output for each in parity.comparisons] == ["output_0_0", "output_1", "output_2"] * 2
    with torch.no_grad():
        model.boxes.bias[2] += 0.01
    with pytest.raises(ParityError, match="'output_0_0' of the"):
        verify_detections(tmp_path / "a.onnx", model, IMAGES)


def test_the_model_is_left_as_it_was(path):
    model = Places().train()
    with torch.no_grad():
        model.body[1].running_mean.zero_()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    verify_detections(path, model, IMAGES)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_no_onnx_file_is_refused(tmp_path, model):
    (tmp_path / "a.onnx").write_text("no file")
    with pytest.raises(ParityError, match="ONNX Runtime cannot open the file"):
        verify_detections(tmp_path / "a.onnx", model, IMAGES)


def test_a_file_of_another_size_does_not_run(model, path):
    with pytest.raises(ParityError, match="ONNX Runtime cannot run the file on image 0"):
        verify_detections(path, model, torch.rand(2, 3, 7, 7))


def test_an_image_with_detections_is_found(model):
    images = torch.cat([torch.full((2, 3, 6, 6), torch.nan), IMAGES])  # nothing is above a threshold
    assert torch.equal(image_with_detections(model, images), IMAGES[:1])
    assert image_with_detections(model, images[:2]).shape == (1, 3, 6, 6)
