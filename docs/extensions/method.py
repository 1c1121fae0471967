"""The drawings of the page on the method. What they show is asked of the package, by the functions that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from docs.extensions.plans import draw_plan
from docs.extensions.svg import Drawing
from vfconvert.ops.blocks import blocks_of, cuts_of, products, terms_of
from vfconvert.ops.crops import crops_and_levels, full_crop, square_crops
from vfconvert.ops.expand import default_rows
from vfconvert.ops.problem import masks
from vfconvert.specs import ConvGeometry, Crop, Pair, VersatileSpec, Window

WIDTH = 480
KERNELS: tuple[Pair, ...] = ((7, 7), (3, 5), (3, 3))


def spec_of(kernel_size: Pair, *, crops: str | None = None, windows: int = 1, stride: int = 0) -> VersatileSpec:
    """The secondary filters of a kernel: crops of a family or none, and windows."""
    found, levels = full_crop(kernel_size) if crops is None else crops_and_levels(kernel_size, crops)
    return VersatileSpec(crops=found, levels=levels, windows=windows, channel_stride=stride)


def conv_of(channels: int, kernel_size: Pair, outputs: int) -> ConvGeometry:
    """A convolution of one group."""
    return ConvGeometry(in_channels=channels, out_channels=outputs, kernel_size=kernel_size)


WINDOWED, SLIDING = conv_of(12, (3, 3), 6), spec_of((3, 3), windows=3, stride=2)
BOTH_CONV, BOTH = conv_of(6, (3, 3), 8), spec_of((3, 3), crops="squares", windows=2, stride=2)
SHARED_CONV, SHARED = conv_of(8, (3, 3), 2), spec_of((3, 3), windows=2, stride=2)


def _kernel(drawing: Drawing, x: float, y: float, cell: float, size: Pair, crop: Crop | None, kind: str) -> None:
    """The taps of a kernel, those of the crop filled."""
    for row in range(size[0]):
        for column in range(size[1]):
            kept = crop and crop.top <= row < crop.bottom and crop.left <= column < crop.right
            drawing.box(x + column * cell, y + row * cell, cell, cell, kind if kept else "out")


def draw_primaries() -> Drawing:
    """Four stored filters, and two stored ones from which four are cut."""
    drawing = Drawing(
        "An ordinary convolution stores four filters; a versatile one stores two, and cuts four.", WIDTH, 222
    )
    geometry, spec, cell = conv_of(1, (3, 3), 4), spec_of((3, 3), crops="squares"), 12.0
    side = 3 * cell
    drawing.text(0, 16, "ordinary", kind="strong")
    drawing.text(190, 16, "versatile", kind="strong")
    drawing.text(0, 34, f"{geometry.out_channels} filters stored", kind="small soft")
    drawing.text(190, 34, f"{spec.primaries(geometry)} primary filters stored", kind="small soft")
    drawing.text(376, 34, "4 outputs", kind="small soft")
    full = square_crops((3, 3))[0]
    for output in range(geometry.out_channels):
        y = 46 + 45 * output
        with drawing.group("ordinary"):
            _kernel(drawing, 0, y, cell, (3, 3), full, "third")
        drawing.arrow((side + 8, y + side / 2), (side + 40, y + side / 2))
        drawing.text(side + 48, y + side / 2 + 5, f"y{output}", kind="code")
    kinds = ("first", "second")
    for primary in range(spec.primaries(geometry)):
        y = 68 + 90 * primary
        with drawing.group("primary"):
            _kernel(drawing, 190, y, cell, (3, 3), full, kinds[primary])
        for level, crop in enumerate(spec.crops):
            at = 46 + 90 * primary + 45 * level
            drawing.arrow(
                (190 + side + 8, y + side / 2), (262, y + side / 2), (262, at + side / 2), (296, at + side / 2)
            )
            with drawing.group(f"secondary {crop}"):
                _kernel(drawing, 304, at, cell, (3, 3), crop, kinds[primary])
            drawing.arrow((348, at + side / 2), (372, at + side / 2))
            drawing.text(380, at + side / 2 + 5, f"y{2 * primary + level}", kind="code")
            drawing.text(402, at + side / 2 + 5, str(crop), kind="small soft")
    return drawing


def draw_crops() -> Drawing:
    """The nested centred crops of some kernels, one level after another."""
    cell, gap = 12.0, 15.0
    drawing = Drawing("The nested centred crops of kernels of 7x7, 3x5 and 3x3.", WIDTH, 274)
    y = 0.0
    for kh, kw in KERNELS:
        x = 54.0
        drawing.text(0, y + 16 + (cell * kh) / 2, f"{kh}x{kw}", kind="strong")
        for level, crop in enumerate(square_crops((kh, kw))):
            drawing.text(x, y + 14, f"level {level}: {crop}" if kw > 5 else f"{level}: {crop}", kind="small soft")
            with drawing.group(f"{kh}x{kw} {crop}"):
                _kernel(drawing, x, y + 20, cell, (kh, kw), crop, "first")
            x += cell * kw + (gap if kw > 3 else 2 * gap)
        y += cell * kh + 48
    return drawing


def draw_lines() -> Drawing:
    """The crops of a 3x3 kernel with lines, by the level that offers them."""
    cell = 18.0
    crops, levels = crops_and_levels((3, 3), "lines")
    drawing = Drawing("A 3x3 kernel with lines: the second output takes the centre, the row or the column.", WIDTH, 104)
    x = 0.0
    for level, offered in enumerate(levels):
        said = f"level {level}" if len(offered) == 1 else f"level {level}: one of these, whichever fits the output best"
        drawing.text(x, 14, said, kind="small soft")
        for index in offered:
            with drawing.group(f"level {level} {crops[index]}"):
                _kernel(drawing, x, 24, cell, (3, 3), crops[index], "first")
            drawing.text(x + 1.5 * cell, 98, str(crops[index]), kind="small", anchor="middle")
            x += 3 * cell + 24
        x += 36
    return drawing


def _channels(drawing: Drawing, x: float, y: float, cell: float, window: Window, channels: int, kind: str) -> None:
    for channel in range(channels):
        inside = window.start <= channel < window.stop
        drawing.box(x + channel * cell, y, cell, 22, kind if inside else "out")


def draw_windows() -> Drawing:
    """Three windows that slide over the channels of a filter, and the segments that their ends cut."""
    cell, left, channels = 24.0, 100.0, WINDOWED.group_inputs
    windows = SLIDING.channel_windows(channels)
    drawing = Drawing("Three channel windows of a filter of 12 channels, each two channels after the last.", WIDTH, 196)
    for channel in range(channels):
        drawing.text(left + (channel + 0.5) * cell, 14, str(channel + 1), kind="small soft", anchor="middle")
    for index, window in enumerate(windows):
        y = 22 + 34 * index
        drawing.text(0, y + 16, f"window {index}", kind="small")
        with drawing.group(f"window {index}"):
            _channels(drawing, left, y, cell, window, channels, ("first", "second", "third")[index])
    stride = SLIDING.channel_stride
    drawing.line((left, 126), (left, 132), (left + stride * cell, 132), (left + stride * cell, 126))
    drawing.text(left, 148, f"stride g = {stride}", kind="small")
    drawing.text(0, 182, "segments", kind="small")
    for segment in cuts_of(windows).segments:
        with drawing.group("segment"):
            drawing.box(left + segment.start * cell + 1, 166, segment.width * cell - 2, 22, "frame")
        drawing.text(
            left + (segment.start + segment.stop) / 2 * cell, 182, str(segment.width), kind="small", anchor="middle"
        )
    return drawing


def draw_both() -> Drawing:
    """The four masks of one primary filter with crops and windows, channel by channel."""
    cell, left, channels = 14.0, 132.0, BOTH_CONV.group_inputs
    kept = masks(BOTH_CONV, BOTH).reshape(len(BOTH.crops), BOTH.window_choices, channels, 3, 3)
    drawing = Drawing(
        "One primary filter of 6 channels and its four secondary filters: two crops by two windows.", WIDTH, 268
    )
    for channel in range(channels):
        drawing.text(left + channel * 56 + 1.5 * cell, 14, str(channel + 1), kind="small soft", anchor="middle")
    drawing.text(0, 14, "channel", kind="small soft")
    for level, crop in enumerate(BOTH.crops):
        for window in range(BOTH.windows):
            y = 24 + 62 * (2 * level + window)
            drawing.text(0, y + 18, f"crop {crop},", kind="small")
            drawing.text(0, y + 34, f"window {window}", kind="small")
            with drawing.group(f"{crop} {window}"):
                for channel in range(channels):
                    for row in range(3):
                        for column in range(3):
                            inside = bool(kept[level, window, channel, row, column])
                            kind = ("first", "second")[window] if inside else "out"
                            drawing.box(left + channel * 56 + column * cell, y + row * cell, cell, cell, kind)
    return drawing


def _sum_words(terms: Sequence[tuple[int, Window]], names: dict[Window, str]) -> str:
    return " + ".join(names[window] for _, window in terms)


def draw_sums() -> Drawing:
    """Each segment convolved once, the windows as sums, and the products of both ways."""
    cell, left, channels = 34.0, 104.0, SHARED_CONV.group_inputs
    windows = SHARED.channel_windows(channels)
    segments = cuts_of(windows).segments
    names = dict(zip(segments, ("a", "b", "c"), strict=True))
    terms = terms_of(windows, channels, "segments")
    drawing = Drawing("Two windows of 8 channels by shared sums: three segments are convolved once each.", WIDTH, 252)
    for index, window in enumerate(windows):
        drawing.text(0, 17 + 32 * index, f"window {index}", kind="small")
        _channels(drawing, left, 1 + 32 * index, cell, window, channels, ("first", "second")[index])
    drawing.text(0, 98, "convolved", kind="small")
    drawing.text(0, 113, "once each", kind="small")
    for segment in segments:
        middle = left + (segment.start + segment.stop) / 2 * cell
        with drawing.group(f"segment {names[segment]}"):
            drawing.box(left + segment.start * cell + 2, 86, segment.width * cell - 4, 30, "frame")
        drawing.text(middle, 106, names[segment], kind="code", anchor="middle")
        drawing.arrow((middle, 118), (middle, 140))
    for index, own in enumerate(terms):
        with drawing.group(f"sum {index}"):
            drawing.text(left, 162 + 22 * index, f"y{index} = {_sum_words(own, names)}", kind="code")
    blocks = blocks_of(SHARED_CONV, SHARED, default_rows(SHARED_CONV, SHARED).tolist())
    area = SHARED.crops[0].area
    counted = {variant: products(blocks or (), SHARED, channels, variant) for variant in ("separate", "segments")}
    drawing.text(
        0, 220, f"two ordinary filters: 2 x {channels} x {area} = {SHARED_CONV.weight_numbers} products", kind="small"
    )
    drawing.text(
        0,
        242,
        f"each window by itself: {counted['separate']}; with shared sums: {counted['segments']}",
        kind="small strong",
    )
    return drawing


def draw_fit() -> Drawing:
    """Where the moments of the closed-form fit come from."""
    drawing = Drawing(
        "A layer's fit: inputs of the student, outputs of the teacher, least squares between them.", WIDTH, 226
    )
    for x, y, name, kind in (
        (92, 20, "layers 1 to k-1", "out"), (282, 20, "layer k", "third"),
        (92, 160, "layers 1 to k-1", "out"), (282, 160, "layer k", "first"),
    ):  # fmt: skip
        drawing.box(x, y, 118, 40, "frame" if kind == "out" else f"{kind} outline")
        drawing.text(x + 59, y + 25, name, kind="small", anchor="middle")
    drawing.text(0, 36, "original", kind="small strong")
    drawing.text(0, 52, "(teacher)", kind="small soft")
    drawing.text(0, 176, "converted", kind="small strong")
    drawing.text(0, 192, "(student)", kind="small soft")
    for y in (40, 180):
        drawing.arrow((212, y), (278, y))
    drawing.arrow((402, 40), (440, 40), (440, 84))
    drawing.arrow((245, 180), (245, 136))
    drawing.box(160, 88, 310, 44, "frame")
    drawing.text(172, 106, "inputs x, targets t of all images:", kind="small")
    drawing.text(172, 123, "H = cov(x),  X = cov(x, t)", kind="code")
    drawing.arrow((341, 134), (341, 156))
    drawing.text(352, 150, "filters", kind="small soft")
    return drawing


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "primaries": draw_primaries,
    "crops": draw_crops,
    "lines": draw_lines,
    "windows": draw_windows,
    "both": draw_both,
    "sums": draw_sums,
    "fit": draw_fit,
    "plan": draw_plan,
}
