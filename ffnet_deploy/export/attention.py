"""SegFormer's attention in inference form.

It is exact at every input size; `nn.MultiheadAttention` is traced with the number of positions as a constant.
"""

import torch
from mmseg.models.backbones.mit import EfficientMultiheadAttention
from mmseg.models.utils import nchw_to_nlc, nlc_to_nchw
from torch import Tensor, nn


class FoldedAttention(nn.Module):
    """Takes the place of an `EfficientMultiheadAttention`; the scale of the products is in the weights of the queries.

    Source: Xie et al., SegFormer, arXiv 2105.15203, section 3.1.
    """

    def __init__(self, attention: EfficientMultiheadAttention):
        super().__init__()
        inner = attention.attn
        self.heads = inner.num_heads
        query, key, value = inner.in_proj_weight.double().chunk(3)
        biases = [None] * 3 if inner.in_proj_bias is None else inner.in_proj_bias.double().chunk(3)
        scale = inner.head_dim**-0.5
        self.query = linear(query * scale, None if biases[0] is None else biases[0] * scale, inner.in_proj_weight)
        self.key = linear(key, biases[1], inner.in_proj_weight)
        self.value = linear(value, biases[2], inner.in_proj_weight)
        self.out_proj = inner.out_proj
        self.reduces = attention.sr_ratio > 1
        if self.reduces:
            self.sr, self.norm = attention.sr, attention.norm

    def forward(self, x: Tensor, hw_shape: tuple[int, int], identity: Tensor) -> Tensor:
        """(batch, positions, channels) to the same shape, `identity` added.

        Args:
            x: height x width positions, row by row.
            hw_shape: height and width.
            identity: of the shape of `x`.
        """
        source = self.norm(nchw_to_nlc(self.sr(nlc_to_nchw(x, hw_shape)))) if self.reduces else x
        query, key, value = (self._by_head(part) for part in (self.query(x), self.key(source), self.value(source)))
        weights = (query @ key.transpose(2, 3)).softmax(3)
        out: Tensor = identity + self.out_proj((weights @ value).transpose(1, 2).flatten(2))
        return out

    def _by_head(self, x: Tensor) -> Tensor:
        """(batch, positions, channels) to (batch, heads, positions, channels / heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


def linear(weight: Tensor, bias: Tensor | None, like: Tensor) -> nn.Linear:
    """A linear layer with `weight` (out, in) and `bias` in the type and on the device of `like`."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, like.device, like.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.requires_grad_(False)
