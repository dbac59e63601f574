"""Layers whose weights are put once, at their first use, into the order that a processor's bf16 kernels want.

torch does so at every call otherwise, which for a picture's small inner layers takes longer than the product itself.
With a kernel of our own (`native_products`) the order is that one's, else oneDNN's. Knows nothing of the networks that
the layers stand in.
"""

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from darkroom.nets import native_products
from darkroom.nets.native_products import SIDE, ProductKernel

Way = Literal["add", "mul"]
"""How another tensor is joined to an answer before that is rounded."""

# What oneDNN packs linear layers for, whoever comes first: for a single row it chooses another order, with which all
# later answers are other bytes.
_USUAL_ROWS = 1024

# oneDNN's kernels as torch has them for its own compiler. There is no public way to them.
_ONE_DNN: Any = torch.ops.mkldnn


def plain(weight: Tensor) -> Tensor:
    """A weight in an order that every operator understands."""
    return weight.to_dense() if weight.is_mkldnn else native_products.unpack(weight)


def is_packed(weight: Tensor) -> bool:
    """Whether a weight is in the order of some kernel."""
    return weight.is_mkldnn or native_products.is_packed(weight)


def suits(x: Tensor) -> bool:
    """Whether packed layers, and what is built on them, are of use for an input: bf16 on a processor that has it."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and _has_kernels()


def _has_kernels() -> bool:
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and bool(_ONE_DNN._is_mkldnn_bf16_supported())  # noqa: SLF001


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Literal["none", "gelu"] = "none") -> Tensor:
    """A linear layer of `[..., C]` in bf16, packed or not, and an activation of its answer before that is rounded."""
    answer: Tensor = _ONE_DNN._linear_pointwise(x, weight, bias, activation, [], "none")  # noqa: SLF001
    return answer


def linear_with(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None, way: Way) -> Tensor:
    """The same, with `other`, which has the answer's shape, added to it or multiplied."""
    answer: Tensor = _ONE_DNN._linear_pointwise.binary(x, other, weight, bias, way)  # noqa: SLF001
    return answer


class _Packed(nn.Module):
    """When a layer's weight is packed, and for which kernel: our own if it has one that takes it, else oneDNN's."""

    weight: Tensor
    kernel: ProductKernel | None = None

    @property
    def is_ours(self) -> bool:
        """Whether a kernel of our own computes it."""
        is_right = all(one.dtype == torch.bfloat16 for one in self.parameters(recurse=False))
        return self.kernel is not None and is_right and self._fits_kernel()

    def _is_packed(self, x: Tensor) -> bool:
        """Have the weight packed if that is of use."""
        if native_products.is_gated(self.weight) or (self.kernel is None and native_products.is_packed(self.weight)):
            _unpack(self)
        if is_packed(self.weight):
            return self.weight.dtype == torch.bfloat16  # else it is held in eight bits, and not widened
        if not _is_packable(self.weight, x):
            return False
        self.weight = _parameter(self._pack_for_kernel() if self.is_ours else self._pack_for_one_dnn(x))
        return True

    def _fits_kernel(self) -> bool:
        raise NotImplementedError

    def _pack_for_kernel(self) -> Tensor:
        raise NotImplementedError

    def _pack_for_one_dnn(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What moves or converts all weights of a network knows the plain order alone."""
        _unpack(self)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class PackedLinear(_Packed, nn.Linear):
    """A linear layer of `[..., C]`."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply; the answer has the type of `x`."""
        if not self._is_packed(x):
            return super().forward(x)
        if self.kernel is None or self.weight.is_mkldnn:
            return linear(x, self.weight, self.bias)
        return self.kernel.linear(x, self.weight, self.bias)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Multiply and add `other`, which has the answer's shape."""
        if not self._is_packed(x):
            answer: Tensor = self(x)
            return answer + other
        if self.kernel is None or self.weight.is_mkldnn:
            return linear_with(x, other, self.weight, self.bias, "add")
        return self.kernel.linear(x, self.weight, self.bias, other)

    @property
    def gates_by_kernel(self) -> bool:
        """Whether `gated` is computed by a kernel of our own."""
        return self.is_ours and self.out_features % (2 * SIDE) == 0

    def gated(self, x: Tensor) -> Tensor:
        """The first half of the answer times the GELU of the second: Shazeer 2020, arXiv:2002.05202, equation 6."""
        if self.kernel is not None and self.gates_by_kernel:
            if not native_products.is_gated(self.weight):
                self.weight = _parameter(native_products.pack_gated(plain(self.weight)))
            return self.kernel.gated(x, self.weight, self.bias)
        bias: Tensor | None = self.bias
        value_bias, gate_bias = (None, None) if bias is None else bias.chunk(2)
        value, gate = plain(self.weight).chunk(2)
        return linear_with(x, linear(x, gate, gate_bias, "gelu"), value, value_bias, "mul")

    def _pack_for_kernel(self) -> Tensor:
        return native_products.pack_linear(self.weight)

    def _pack_for_one_dnn(self, x: Tensor) -> Tensor:  # noqa: ARG002  convolutions look at it
        packed: Tensor = _ONE_DNN._reorder_linear_weight(self.weight, _USUAL_ROWS)  # noqa: SLF001
        return packed

    def _fits_kernel(self) -> bool:
        return self.in_features % SIDE == 0 and self.out_features % SIDE == 0


class PackedConv2d(_Packed, nn.Conv2d):
    """A convolution of `[B, C, H, W]`, quick where that is channels-last."""

    _doubled: tuple[Tensor, Tensor] | None = None
    """A weight, and what became of it for `doubled`."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; the answer has the type of `x`."""
        if not self._is_packed(x):
            return super().forward(x)
        if self.kernel is not None and not self.weight.is_mkldnn:
            return self._by_kernel(self.kernel, x, None)
        answer: Tensor = _ONE_DNN._convolution_pointwise(*self._arguments(x), "none", [], "")  # noqa: SLF001
        return answer

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Convolve and add `other`, which has the answer's shape."""
        if not self._is_packed(x):
            alone: Tensor = self(x)
            return alone + other
        if self.kernel is not None and not self.weight.is_mkldnn:
            return self._by_kernel(self.kernel, x, other)
        x, *rest = self._arguments(x)
        kernel = _ONE_DNN._convolution_pointwise.binary  # noqa: SLF001
        answer: Tensor = kernel(x, other, *rest, "add", None, None, [], None)
        return answer

    def doubled(self, x: Tensor) -> Tensor:
        """Convolve a picture that is made twice as high and wide first, each pixel four times."""
        is_plain = self.padding_mode == "zeros" and self.kernel_size == (3, 3)
        if self.kernel is None or not (is_plain and self.is_ours and _is_computable(x)):
            found: Tensor = self(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
            return found
        if self._doubled is None or self._doubled[0] is not self.weight:
            self._doubled = self.weight, native_products.pack_doubled(plain(self.weight))
        return self.kernel.convolve_doubled(x, self._doubled[1], self.bias)

    def _by_kernel(self, kernel: ProductKernel, x: Tensor, other: Tensor | None) -> Tensor:
        if self.kernel_size == (1, 1):
            added = None if other is None else other.permute(0, 2, 3, 1)
            return kernel.linear(x.permute(0, 2, 3, 1), self.weight, self.bias, added).permute(0, 3, 1, 2)
        if self.padding_mode == "zeros":
            return kernel.convolve(x, self.weight, self.bias, other)
        # The kernel's own margin of zeros is seen by nothing but the margin of the answer, which is cut off.
        framed = functional.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        answer = kernel.convolve(framed, self.weight, self.bias)[..., 1:-1, 1:-1]
        return answer.contiguous(memory_format=torch.channels_last) if other is None else answer + other

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._doubled = None
        return super()._apply(fn, recurse)

    def _arguments(self, x: Tensor) -> tuple[Any, ...]:
        """What oneDNN's kernels are told, from `x` to the groups."""
        padding = list(self.padding)
        if self.padding_mode != "zeros":
            x = functional.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = [0, 0]
        return x, self.weight, self.bias, padding, list(self.stride), list(self.dilation), self.groups

    def _pack_for_kernel(self) -> Tensor:
        pack = native_products.pack_pointwise if self.kernel_size == (1, 1) else native_products.pack_convolution
        return pack(self.weight)

    def _pack_for_one_dnn(self, x: Tensor) -> Tensor:
        shape = list(self.padding), list(self.stride), list(self.dilation), self.groups, list(x.shape)
        packed: Tensor = _ONE_DNN._reorder_convolution_weight(self.weight, *shape)  # noqa: SLF001
        return packed

    def _fits_kernel(self) -> bool:
        is_plain = self.stride == self.dilation == (1, 1) and self.groups == 1
        is_known = (self.kernel_size, self.padding) in (((3, 3), (1, 1)), ((1, 1), (0, 0)))
        fits = self.in_channels % SIDE == 0 and self.out_channels % SIDE == 0
        return is_plain and is_known and fits


def _is_packable(weight: Tensor, x: Tensor) -> bool:
    return weight.dtype == torch.bfloat16 and _is_computable(x)


def _is_computable(x: Tensor) -> bool:
    return suits(x) and not torch.is_grad_enabled()


def _unpack(layer: _Packed) -> None:
    if is_packed(layer.weight):
        layer.weight = _parameter(plain(layer.weight))


def _parameter(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


def multiply_by(network: nn.Module, kernel: ProductKernel | None) -> None:
    """Have all packed layers of a network computed by a kernel, or by oneDNN's (None)."""
    for layer in network.modules():
        if isinstance(layer, _Packed) and layer.kernel is not kernel:
            _unpack(layer)
            layer.kernel = kernel


def pack_layers(network: nn.Module) -> None:
    """Put packed ones in place of all plain convolutions and linear layers of a network that has no weights yet."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child.in_features, child.out_features, child.bias is not None))
            elif type(child) is nn.Conv2d:
                setattr(parent, name, _packed(child))


def _packed(layer: nn.Conv2d) -> PackedConv2d:
    return PackedConv2d(
        layer.in_channels,
        layer.out_channels,
        (layer.kernel_size[0], layer.kernel_size[1]),
        stride=(layer.stride[0], layer.stride[1]),
        padding=layer.padding,  # type: ignore[arg-type]  # torch types it more loosely than it takes it
        dilation=(layer.dilation[0], layer.dilation[1]),
        groups=layer.groups,
        bias=layer.bias is not None,
    )
