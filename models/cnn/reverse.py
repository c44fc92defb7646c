"""The network's backward pass written forwards, so that ONNX can run it without torch.

Autograd graphs do not export reliably; this module computes the same numbers with plain tensor
operations: the backward of a convolution is a convolution with the flipped, transposed kernel, and
that of a max pooling is a mask.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.cnn.network import Block, LesionNet


class ReverseNet(nn.Module):
    """Gradients of  sum(w_logits * logits) + sum over taps of sum(w_tap * tap).

    Built from a LesionNet (folded inside). forward(x, w_logits, w_conv1, ..., w_fc) returns
    (grad_input [B, P, K, K, K], grad_conv1 [B, D], ..., grad_fc [B, D]); a convolutional tap's
    gradient is the derivative along a uniform shift of its map: the map's gradient, summed over
    space.
    """

    def __init__(self, network: LesionNet) -> None:
        super().__init__()
        self.net = network.folded()
        self.architecture = network.architecture
        for i, block in enumerate(self.net.blocks):
            assert isinstance(block, Block)
            flipped = block.conv.weight.flip(2, 3, 4).transpose(0, 1).contiguous()
            self.register_buffer(f"flipped{i}", flipped)

    def forward(self, x: Tensor, w_logits: Tensor, *w_taps: Tensor) -> tuple[Tensor, ...]:
        arch = self.architecture
        weights = dict(zip(arch.taps, w_taps, strict=True))
        maps: list[Tensor] = []
        pooled: list[Tensor] = []
        h = x
        for block, pool in zip(self.net.blocks, arch.pool, strict=True):
            h = block(h)
            maps.append(h)
            h = functional.max_pool3d(h, 2) if pool else h
            pooled.append(h)
        fc = functional.relu(self.net.fc(h.mean(dim=(2, 3, 4))))

        grads: dict[str, Tensor] = {}
        grads["fc"] = w_logits @ self.net.head.weight + weights["fc"]
        mean = (grads["fc"] * (fc > 0).to(fc.dtype)) @ self.net.fc.weight
        g = _spread(mean, pooled[-1])
        for i in reversed(range(len(maps))):
            if arch.pool[i]:
                g = _unpool(g, maps[i], pooled[i])
            name = arch.conv_taps[i]
            g = g + _spread(weights[name], maps[i])
            grads[name] = g.sum(dim=(2, 3, 4))
            g = g * (maps[i] > 0).to(g.dtype)
            g = functional.conv3d(g, getattr(self, f"flipped{i}"), padding=arch.kernels[i] // 2)
        return (g, *(grads[name] for name in arch.taps))


def _spread(gradient: Tensor, like: Tensor) -> Tensor:
    """Backward of the mean over space: the same share to every voxel."""
    size = like.shape[2] * like.shape[3] * like.shape[4]
    return (gradient / size)[:, :, None, None, None].expand_as(like)


def _unpool(gradient: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Backward of max pooling 2x2x2. Equal maxima share alike, where autograd picks the first.

    That differs only for windows of equal values, in practice all zero: behind them the ReLU stops
    the gradient, and the sum over space is the same.
    """
    _, c, x, y, z = before.shape
    windows = before.reshape(-1, c, x // 2, 2, y // 2, 2, z // 2, 2)
    top = after[:, :, :, None, :, None, :, None]
    mask = (windows == top).to(gradient.dtype)
    share = gradient[:, :, :, None, :, None, :, None] / mask.sum(dim=(3, 5, 7), keepdim=True)
    return (mask * share).reshape(-1, c, x, y, z)


def autograd_gradients(
    network: LesionNet, x: Tensor, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The same gradients by autograd on the unfolded network: the reference for parity."""
    network.eval()
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_(True)
        out = network.outputs(leaf)
        total = (weights["logits"] * out.logits).sum()
        for name, tap in out.taps.items():
            total = total + (weights[name] * tap).sum()
        held = {**out.maps, "fc": out.taps["fc"]}
        found = torch.autograd.grad(total, [leaf, *held.values()])
    result = {"input": found[0]}
    for name, gradient in zip(held, found[1:], strict=True):
        result[name] = gradient if name == "fc" else gradient.sum(dim=(2, 3, 4))
    return result
