"""ViT: patches, attention, starting weights, groups."""

from __future__ import annotations

import torch
import zoo_networks
from torch.nn import functional as F

from hypergen.zoo.networks import ViT
from hypergen.zoo.networks.vit import Attention

NET = zoo_networks.NETWORKS["vit"]


def test_attention_is_scaled_dot_product_attention():
    layer = Attention(12, 3)
    x = torch.randn(2, 5, 12)
    q, k, v = (f(x).view(2, 5, 3, 4).transpose(1, 2) for f in (layer.query, layer.key, layer.value))
    expected = layer.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 12))
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_patches_are_those_of_a_strided_convolution():
    module = ViT((3, 8, 12), patch=4, dim=6, depth=1, heads=1, mlp=4).module()
    x = torch.randn(2, 3, 8, 12)
    seen = []
    module.blocks.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module(x)
    kernel = module.embed.weight.view(6, 3, 4, 4)
    expected = F.conv2d(x, kernel, module.embed.bias, stride=4).flatten(2).mT + module.position
    assert torch.allclose(seen[0], expected, atol=1e-5)


def test_positions_are_embeddings_of_small_size():
    slot = NET.spec()["position"]
    assert (slot.role, slot.std, slot.shape) == ("embedding", 0.02, (4, 12))
    assert NET.spec()["head.weight"].std == 0.02


def test_the_stream_is_optional():
    with_stream = [(g.name, g.size) for g in NET.symmetry().groups]
    without = [(g.name, g.size) for g in NET.symmetry(stream=False).groups]
    assert with_stream == [*without, ("stream", 12)]
    assert without[:2] == [("block0.heads", 3), ("block0.mlp", 8)]
