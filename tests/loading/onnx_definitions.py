"""Single operators whose definition differs from torch's function of that name, or from opset to opset."""

from typing import Any

import numpy as np

from tests.loading.onnx_samples import floats

NONE = np.array([], np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def scales(*values: float) -> np.ndarray:
    return np.array((1, 1, *values), np.float32)


def resize(place: str, rounding: str = "round_prefer_floor", mode: str = "nearest", **more: Any) -> dict[str, Any]:
    return {"coordinate_transformation_mode": place, "nearest_mode": rounding, "mode": mode} | more


# Operator, other inputs, attributes, opset. The input is (1, 4, 8, 8).
CASES: list[tuple[str, list[np.ndarray], dict[str, Any], int]] = [
    *(("Softmax", [], attributes, opset) for attributes in ({}, {"axis": 1}, {"axis": 3}) for opset in (11, 13)),
    ("LogSoftmax", [], {"axis": 2}, 9),
    ("Clip", [], {"min": -0.5, "max": 0.5}, 10),
    ("Clip", [], {}, 10),
    ("Clip", [np.float32(0.1)], {}, 12),
    *(("ReduceSum", [], {"axes": [2, -1], "keepdims": keep}, 12) for keep in (0, 1)),
    ("ReduceSum", [], {"noop_with_empty_axes": 1}, 18),
    ("ReduceMean", [], {"axes": [1]}, 17),
    *((kind, [ints(1)], {}, 18) for kind in ("ReduceL1", "ReduceSumSquare", "ReduceLogSumExp")),
    ("BatchNormalization", [floats(4), floats(4), floats(4), np.abs(floats(4)) + 0.1], {}, 9),
    ("GroupNormalization", [floats(2), floats(2)], {"num_groups": 2}, 18),
    ("GroupNormalization", [floats(4), floats(4)], {"num_groups": 2}, 21),
    ("LayerNormalization", [floats(8, 8), floats(8, 8)], {"axis": 2}, 17),
    ("LRN", [], {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 1.5}, 13),
    *(("LpNormalization", [], {"axis": 1, "p": power}, 11) for power in (1, 2)),
    *(("GlobalLpPool", [], {"p": power}, 11) for power in (1, 2, 3)),
    ("LpPool", [], {"kernel_shape": [3, 2], "p": 3, "pads": [1, 0, 1, 1], "strides": [2, 1]}, 11),
    ("Celu", [], {"alpha": 0.7}, 12),
    ("Elu", [], {"alpha": 0.7}, 12),
    ("Selu", [], {"alpha": 1.5, "gamma": 0.9}, 12),
    *((kind, [], {}, 12) for kind in ("ThresholdedRelu", "Shrink", "Sign", "Tan", "Atan", "Sinh", "Cosh", "Asinh")),
    ("ThresholdedRelu", [], {"alpha": 0.3}, 12),
    ("Shrink", [], {"bias": 0.2, "lambd": 0.4}, 12),
    ("HardSigmoid", [], {"alpha": 0.3, "beta": 0.4}, 12),
    *(("Gelu", [], {"approximate": how}, 20) for how in ("none", "tanh")),
    ("PRelu", [floats(1)], {}, 16),
    ("PRelu", [floats(4, 1, 1)], {}, 9),
    ("PRelu", [floats(8)], {}, 16),
    ("PRelu", [floats(8, 8)], {}, 16),
    *((kind, [floats(8)], {}, 13) for kind in ("Sub", "Min", "Mean")),
    ("Einsum", [floats(4, 5)], {"equation": "bchw,cd->bdhw"}, 12),
    ("MatMul", [floats(4, 8, 3)], {}, 13),
    ("Tile", [ints(1, 2, 1, 3)], {}, 13),
    ("CumSum", [np.array(2)], {}, 14),
    ("Expand", [ints(8)], {}, 13),
    ("Gather", [ints(-1, 0)], {"axis": -1}, 13),
    ("Gather", [np.array(-2)], {"axis": 1}, 13),
    ("Slice", [], {"starts": [1, -3], "ends": [3, 100], "axes": [1, 3]}, 9),
    ("Slice", [ints(-1), ints(-(2**63)), ints(1), ints(-1)], {}, 13),
    ("Slice", [ints(3), ints(-(2**31)), ints(1), ints(-1)], {}, 13),
    ("SpaceToDepth", [], {"blocksize": 2}, 13),
    ("Flatten", [], {"axis": 3}, 13),
    ("Pad", [], {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 0.3}, 10),
    ("Pad", [ints(0, 0, -1, 2, 0, 0, 1, -2)], {}, 13),
    *(("Pad", [ints(0, 0, 0, 1, 0, 0, 0, 2)], {"mode": mode}, 19) for mode in ("reflect", "edge", "wrap")),
    *(
        ("Conv", [floats(6, 4, 3, 2)], {"auto_pad": f"SAME_{side}", "strides": [2, 3]}, 11)
        for side in ("UPPER", "LOWER")
    ),
    *(
        ("ConvTranspose", [floats(4, 3, 3, 2)], {"auto_pad": f"SAME_{side}", "strides": [2, 2]}, 11)
        for side in ("UPPER", "LOWER")
    ),
    ("ConvTranspose", [floats(4, 3, 3, 3), floats(3)], {"pads": [0, 1, 2, 0], "strides": [2, 1]}, 11),
    ("ConvTranspose", [floats(4, 3, 3, 3)], {"output_shape": [16, 17], "strides": [2, 2]}, 11),
    ("ConvTranspose", [floats(4, 3, 2, 2)], {"dilations": [2, 3]}, 11),
    *(
        ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, opset)
        for opset in (8, 12)
    ),
    ("MaxPool", [], {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}, 12),
    ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]}, 12),
    ("MaxPool", [], {"kernel_shape": [2, 2], "dilations": [2, 2], "ceil_mode": 1, "strides": [3, 3]}, 12),
    *(
        (
            "AveragePool",
            [],
            {
                "kernel_shape": [3, 3],
                "strides": [2, 2],
                "pads": [1, 1, 1, 1],
                "ceil_mode": 1,
                "count_include_pad": counted,
            },
            19,
        )
        for counted in (0, 1)
    ),
    *(
        (
            "AveragePool",
            [],
            {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "count_include_pad": counted, "strides": s},
            11,
        )
        for counted in (0, 1)
        for s in ([1, 1], [2, 2])
    ),
    ("Upsample", [scales(2, 2)], {"mode": "linear"}, 9),
    ("Upsample", [], {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 2.0]}, 7),
    ("Resize", [scales(2, 1.5)], {"mode": "linear"}, 10),
    ("Resize", [scales(0.5, 0.6)], {"mode": "nearest"}, 10),
    *(
        ("Resize", [NONE, scales(*by)], resize(place, rounding), 13)
        for place in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for by in ((2, 3), (0.5, 1.7))
    ),
    ("Resize", [np.zeros(8, np.float32), scales(2, 3)], resize("tf_half_pixel_for_nn", "floor"), 11),
    *(
        ("Resize", [NONE, NONE, ints(1, 4, *sizes)], resize(place, mode=mode), 13)
        for place in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
        for mode in ("linear", "cubic")
        for sizes in ((16, 13), (5, 1))
    ),
    ("Resize", [NONE, scales(2, 2)], resize("half_pixel", mode="cubic", cubic_coeff_a=-0.5), 13),
    ("Resize", [NONE, np.array([2, 3], np.float32)], resize("half_pixel", mode="linear", axes=[2, 3]), 18),
]
