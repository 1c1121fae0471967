"""The operators that the graph of a file may call: what networks compute forward, each of which checks its arguments.

torch has some 1,700 more. Among those are gradients, which read and write where a tensor of indices says without
looking, and what only torch's own code calls, on memory. `roi_align` and its like of torchvision trust the numbers of
images in their boxes, and are not among them.
"""

from __future__ import annotations

_POINTWISE = """
abs absolute acos acosh add addcdiv addcmul angle arctan2 asin asinh atan atan2 atanh bitwise_and bitwise_left_shift
bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil celu clamp clamp_max clamp_min clip complex conj
conj_physical copysign cos cosh deg2rad div divide elu eq erf erfc erfinv exp exp2 expm1 float_power floor floor_divide
fmax fmin fmod frac gelu glu greater greater_equal gt ge hardshrink hardsigmoid hardswish hardtanh heaviside hypot imag
isclose isfinite isinf isnan isneginf isposinf ldexp le leaky_relu lerp less less_equal lgamma log log10 log1p log2
log_sigmoid log_sigmoid_forward logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit lt masked_fill
maximum minimum mish mul multiply nan_to_num ne neg negative not_equal polar positive pow prelu _prelu_kernel rad2deg
real reciprocal relu relu6 remainder resolve_conj resolve_neg round rrelu rsqrt rsub selu sgn sigmoid sign signbit silu
sin sinc sinh softplus softshrink special_erf special_erfc special_expit special_expm1 special_log1p special_logit
special_round special_sinc special_xlog1py sqrt square sub subtract tan tanh threshold true_divide trunc fix where xlogy
_conj
"""
_REDUCING = """
all any amax amin aminmax argmax argmin argsort count_nonzero cov cummax cummin cumprod cumsum equal frobenius_norm
kthvalue linalg_matrix_norm linalg_norm linalg_vector_norm log_softmax logcumsumexp logsumexp max mean median min mode
nanmean nanmedian nansum norm nuclear_norm prod quantile softmax sort special_log_softmax special_logsumexp
special_softmax std std_mean sum sum_to_size topk trace var var_mean _log_softmax _softmax
"""
_SHAPING = """
adjoint alias as_strided atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to cartesian_prod cat
channel_shuffle chunk clone column_stack combinations concat concatenate constant_pad_nd contiguous copy detach diag
diag_embed diagflat diagonal diagonal_scatter dsplit dstack expand expand_as flatten flip fliplr flipud hsplit hstack
im2col col2im lift lift_fresh mH mT matrix_H meshgrid moveaxis movedim narrow native_channel_shuffle numpy_T pad permute
pixel_shuffle pixel_unshuffle ravel reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave
replication_pad1d replication_pad2d replication_pad3d reshape reshape_as roll rot90 row_stack select select_scatter
slice slice_scatter split split_with_sizes squeeze stack swapaxes swapdims t take_along_dim tensor_split tile to
transpose tril triu type_as unbind unflatten unfold unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze view
view_as view_as_complex view_as_real vsplit vstack _pad_circular _pad_enum _reshape_alias _to_copy _unsafe_view
alias_copy detach_copy diagonal_copy expand_copy lift_fresh_copy narrow_copy permute_copy select_copy slice_copy
split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unsqueeze_copy view_copy
"""
_MAKING = """
arange empty empty_like empty_permuted empty_strided eye full full_like linspace logspace new_empty new_empty_strided
new_full new_ones new_zeros one_hot ones ones_like rand rand_like randn randn_like scalar_tensor tril_indices
triu_indices zeros zeros_like fill zero bernoulli normal_functional uniform dropout native_dropout feature_dropout
alpha_dropout feature_alpha_dropout
"""
_CHOOSING = """
bucketize embedding gather index index_add index_copy index_fill index_put index_select isin masked_scatter
masked_select nonzero scatter scatter_add scatter_reduce searchsorted take _unsafe_index
"""
_OF_IMAGES = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
affine_grid_generator avg_pool1d avg_pool2d avg_pool3d batch_norm conv1d conv2d conv3d conv_transpose1d conv_transpose2d
conv_transpose3d convolution grid_sampler grid_sampler_2d grid_sampler_3d group_norm instance_norm layer_norm max_pool1d
max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d
native_batch_norm native_group_norm native_layer_norm norm_except_dim rms_norm upsample_bicubic2d upsample_bilinear2d
upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d _adaptive_avg_pool2d
_adaptive_avg_pool3d _convolution _convolution_mode _fused_rms_norm _native_batch_norm_legit
_native_batch_norm_legit_functional _native_batch_norm_legit_no_training _upsample_bicubic2d_aa _upsample_bilinear2d_aa
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm _weight_norm_interface
"""
_MULTIPLYING = """
addbmm addmm addmv addr baddbmm bilinear bmm cdist chain_matmul cosine_similarity cross dot einsum fft_fft fft_fft2
fft_fftfreq fft_fftn fft_fftshift fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_irfft fft_irfft2 fft_irfftn fft_rfft
fft_rfft2 fft_rfftfreq fft_rfftn ger gru gru_cell inner inverse kron linalg_cholesky linalg_cholesky_ex linalg_cross
linalg_det linalg_diagonal linalg_eigh linalg_inv linalg_inv_ex linalg_matmul linalg_matrix_exp linalg_matrix_power
linalg_multi_dot linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_solve_ex linalg_svd linalg_vecdot linear lstm
lstm_cell matmul matrix_exp matrix_power mm mv outer pairwise_distance rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell
scaled_dot_product_attention tensordot vdot _cdist_forward _euclidean_dist _fft_c2c _fft_c2r _fft_r2c
_scaled_dot_product_attention_math _scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention
_scaled_dot_product_flash_attention_for_cpu _trilinear
"""
_OF_SIZES = """
dim is_complex is_floating_point item numel size sym_is_contiguous sym_numel sym_size sym_storage_offset sym_stride
"""
_TORCHVISION = frozenset(("deform_conv2d", "nms"))
_ATEN = frozenset(
    " ".join((_POINTWISE, _REDUCING, _SHAPING, _MAKING, _CHOOSING, _OF_IMAGES, _MULTIPLYING, _OF_SIZES)).split()
)
_PACKED = "data"  # the overload of recurrent layers that trusts the lengths of its sequences


def may_call(space: str, name: str, overload: str) -> bool:
    """Whether it is one of these, or the same of aten in place (`relu_`)."""
    if space == "torchvision":
        return name in _TORCHVISION
    return space == "aten" and overload != _PACKED and name.removesuffix("_") in _ATEN
