"""Constants folded and operators joined in a freshly translated graph, in a time that grows with its nodes.

onnxscript's own `optimize` has a rule, for two slices that are a split, that looks at pairs of all nodes. On a network
lowered to segments, of hundreds of slices, that takes longer than all else and finds nothing. The rules here are those
of its others that a network can have a use for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir

LARGEST_FOLDED = 256  # elements of a constant that may be stored in place of the nodes that compute it
_RULES = (
    *("add_0_rule", "sub_0_rule", "mul_by_1_rule", "div_by_1_rule", "dropout_inference_rule", "dropout_zero_rule"),
    *("two_reshapes_matmul_reshape_rule", "one_reshape_matmul_reshape_rule", "cast_constant_of_shape_rule"),
    *("cast_constant_of_shape_without_value_rule", "collapse_slice_rule", "collapse_slice2_rule"),
    *("materialize_reshape_shape_rule", "min_min_rule", "max_max_rule", "min_max_rule", "max_min_rule"),
    *("successive_clip_relu_rule", "successive_relu_clip_rule", "successive_relu_rule", "successive_clip_rule"),
    *("cast_cast_rule", "no_op_cast_rule", "no_op_expand_rule", "flatten_to_reshape_rule", "reshape_reshape_rule"),
    *("no_op_transpose_rule", "transpose_transpose_rule", "unsqueeze_unsqueeze_rule", "squeeze_reshape_1d_rule"),
    *("no_op_dynamic_scatter_nd_rule", "no_op_static_scatter_nd_rule"),
    *("normalize_pad_format_conv_rule", "fuse_pad_into_conv_rule", "fuse_batchnorm_into_conv_rule"),
    *("fuse_batchnorm_into_conv_transpose_rule", "fuse_batchnorm_into_gemm_rule"),
    *("remove_optional_bias_from_conv_rule", "remove_optional_bias_from_conv_transpose_rule"),
    "remove_optional_bias_from_gemm_rule",
)


def optimise_(model: onnx_ir.Model) -> None:
    """Fold what is small, join what can be joined, remove what is not used or there twice; in place."""
    from onnx_ir.passes import common
    from onnxscript import optimizer, rewriter
    from onnxscript.rewriter.rules import common as rules

    common.InlinePass()(model)
    optimizer.fold_constants(model, onnx_shape_inference=True, output_size_limit=LARGEST_FOLDED)
    known = [getattr(rules, name) for name in _RULES if hasattr(rules, name)]  # older releases have fewer
    rewriter.rewrite(model, known)  # and removes what is unused
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.DeduplicateInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    for name in ("OutputFixPass", "NameFixPass"):  # one value as two outputs; older releases leave that as it was
        if hasattr(common, name):
            getattr(common, name)()(model)
