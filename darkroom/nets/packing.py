"""Layers whose weights are put once, at their first use, into the order that a processor's bf16 kernels want.

torch does so at every call otherwise, which for a picture's small inner layers takes longer than the product itself.
Nothing else changes: the kernels and their answers are the same. Knows nothing of the networks that the layers stand
in.
"""

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

Way = Literal["add", "mul"]
"""How another tensor is joined to an answer before that is rounded."""

# oneDNN's kernels as torch has them for its own compiler. There is no public way to them.
_ONE_DNN: Any = torch.ops.mkldnn


def plain(weight: Tensor) -> Tensor:
    """A weight in an order that every operator understands."""
    return weight.to_dense() if weight.is_mkldnn else weight


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


class PackedLinear(nn.Linear):
    """A linear layer of `[..., C]`."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply; the answer has the type of `x`."""
        return linear(x, self.weight, self.bias) if self._is_packed(x) else super().forward(x)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Multiply and add `other`, which has the answer's shape."""
        if self._is_packed(x):
            return linear_with(x, other, self.weight, self.bias, "add")
        answer: Tensor = self(x)
        return answer + other

    def _is_packed(self, x: Tensor) -> bool:
        """Have the weight packed if that is of use."""
        if not self.weight.is_mkldnn and _is_packable(self.weight, x):
            rows = x.numel() // x.shape[-1]
            self.weight = _parameter(_ONE_DNN._reorder_linear_weight(self.weight, rows))  # noqa: SLF001
        return self.weight.is_mkldnn

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What moves or converts all weights of a network knows the plain order alone."""
        _unpack(self)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class PackedConv2d(nn.Conv2d):
    """A convolution of `[B, C, H, W]`, quick where that is channels-last."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; the answer has the type of `x`."""
        if not self._is_packed(x):
            return super().forward(x)
        answer: Tensor = _ONE_DNN._convolution_pointwise(*self._arguments(x), "none", [], "")  # noqa: SLF001
        return answer

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Convolve and add `other`, which has the answer's shape."""
        if not self._is_packed(x):
            alone: Tensor = self(x)
            return alone + other
        x, *rest = self._arguments(x)
        kernel = _ONE_DNN._convolution_pointwise.binary  # noqa: SLF001
        answer: Tensor = kernel(x, other, *rest, "add", None, None, [], None)
        return answer

    def _arguments(self, x: Tensor) -> tuple[Any, ...]:
        """What the kernels are told, from `x` to the groups."""
        padding = list(self.padding)
        if self.padding_mode != "zeros":
            x = functional.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = [0, 0]
        return x, self.weight, self.bias, padding, list(self.stride), list(self.dilation), self.groups

    def _is_packed(self, x: Tensor) -> bool:
        """Have the weight packed if that is of use."""
        if not self.weight.is_mkldnn and _is_packable(self.weight, x):
            shape = list(self.padding), list(self.stride), list(self.dilation), self.groups, list(x.shape)
            self.weight = _parameter(_ONE_DNN._reorder_convolution_weight(self.weight, *shape))  # noqa: SLF001
        return self.weight.is_mkldnn

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What moves or converts all weights of a network knows the plain order alone."""
        _unpack(self)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _is_packable(weight: Tensor, x: Tensor) -> bool:
    return weight.dtype == torch.bfloat16 and suits(x) and not torch.is_grad_enabled()


def _unpack(layer: PackedLinear | PackedConv2d) -> None:
    if layer.weight.is_mkldnn:
        layer.weight = _parameter(layer.weight.to_dense())


def _parameter(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


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
