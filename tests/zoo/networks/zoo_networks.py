"""Small networks of every architecture of the zoo, random weights for them, forward passes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from hypergen.zoo.networks import CNN, MLP, SIREN, Network, ViT
from hypergen.zoo.networks.mlp import ACTIVATIONS

NETWORKS: dict[str, Network] = {
    **{f"mlp-{name}": MLP(6, (7, 5), 3, name) for name in ACTIVATIONS},
    "mlp-batch": MLP(6, (7, 5), 3, norm="batch"),
    "mlp-layer": MLP(6, (7, 5), 3, norm="layer"),
    "mlp-deep": MLP(6, (5, 1, 5, 5), 2),
    "linear": MLP(6, (), 3),
    "cnn-plain": CNN((1, 8, 8), (4, 6), 3, norm=None),
    "cnn-batch": CNN((2, 9, 7), (4, 6), 3),
    "cnn-layer": CNN((1, 8, 8), (4, 6), 3, norm="layer"),
    "cnn-plain-residual": CNN((1, 8, 8), (4, 6), 3, norm=None, residual=True),
    "cnn-batch-residual": CNN((1, 8, 8), (4, 6), 3, residual=True),
    "cnn-layer-residual": CNN((1, 8, 8), (4, 6), 3, norm="layer", residual=True),
    "vit": ViT((1, 6, 6), patch=3, dim=12, depth=2, heads=3, mlp=8, outputs=3),
    "siren": SIREN(2, (7, 6), 1),
}


def inputs_of(network: Network, samples: int, seed: int = 0) -> Tensor:
    """Random inputs of a network, `[samples, …]`."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(network, (CNN, ViT)):
        return torch.randn(samples, *network.image, generator=generator)
    return torch.rand(samples, network.inputs, generator=generator) * 2 - 1


def weights_of(network: Network, count: int, seed: int = 0) -> Tensor:
    """Networks `[count, numel]` whose biases, norms and statistics are off their start too."""
    spec = network.spec()
    starts = torch.stack([spec.initial(seed + i) for i in range(count)])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(starts.shape, generator=generator)  # positive: variances stay so
    return starts + 0.2 * noise * spec.per_entry("scale").clamp(max=1.0)


def outputs_of(network: Network, flat: Tensor, x: Tensor) -> Tensor:
    """Runs every network on the same inputs, in evaluation mode: `[count, samples, outputs]`."""
    module = network.module().eval()
    named = network.spec().unpack(flat)
    return vmap(lambda one: functional_call(module, one, (x,)))(named).detach()


def assert_same_function(network: Network, a: Tensor, b: Tensor) -> None:
    """Outputs of two batches of networks agree to 1e-5 of their size."""
    x = inputs_of(network, 16)
    first, second = outputs_of(network, a, x), outputs_of(network, b, x)
    spread = first.abs().amax((1, 2), keepdim=True)
    assert float(((first - second).abs() / spread).max()) < 1e-5
