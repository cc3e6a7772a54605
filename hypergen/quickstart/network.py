"""The frozen target of the quickstart: a small network that was never asked a yes/no question."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import RunError
from hypergen._utils.io import load_safetensors, read_json, save_safetensors, write_json
from hypergen._utils.progress import progress
from hypergen._utils.seeding import generator as seeded
from hypergen.quickstart.images import DigitImages


class DigitNet(nn.Module):
    """64 pixels → two hidden layers → two logits, no and yes.

    Args:
        hidden: Width of the hidden layers.
    """

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 2)

    def features(self, images: Tensor) -> Tensor:
        """`[N, 64]` → `[N, hidden]`."""
        return F.relu(self.fc2(F.relu(self.fc1(images))))

    def forward(self, images: Tensor) -> Tensor:
        """`[N, 64]` → logits `[N, 2]` of no and yes."""
        out: Tensor = self.out(self.features(images))
        return out


def pretrain(
    images: DigitImages, hidden: int = 128, steps: int = 1500, seed: int = 0, batch: int = 128
) -> DigitNet:
    """Trains the hidden layers to see, without any label; the yes/no layer stays untrained.

    Random blocks of pixels (two in five) are hidden, noise is added, and a decoder
    that is then thrown away restores the whole image from the hidden layers (a denoising
    autoencoder: Vincent et al., ICML 2008; masked: He et al., arXiv:2111.06377). No digit label,
    let alone a question, is used; the output layer keeps its random start, so that the network
    answers every question at chance.

    Args:
        images: Only the training images are used.
        hidden: Width of the hidden layers.
        steps: Optimiser steps.
        seed: Seed of everything random.
        batch: Images a step.

    Returns:
        The network in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DigitNet(hidden)
        decoder = nn.Linear(hidden, 64)
    data = torch.from_numpy(images.train)
    parameters = [*net.fc1.parameters(), *net.fc2.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in progress(range(steps), desc="pretraining the target", unit="step"):
        generator = seeded("pretrain", seed, step)
        clean = data[torch.randint(len(data), (batch,), generator=generator)]
        loss = F.mse_loss(decoder(net.features(_hide(clean, generator))), clean)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def _hide(images: Tensor, generator: torch.Generator, share: float = 0.4) -> Tensor:
    """Hides random 2 × 2 blocks of an 8 × 8 image, and adds noise."""
    keep = torch.rand(len(images), 1, 4, 4, generator=generator) > share
    mask = F.interpolate(keep.float(), scale_factor=2).flatten(1)
    noise = 0.3 * torch.randn(images.shape, generator=generator)
    return (images + noise) * mask


def save_network(net: DigitNet, folder: Path) -> None:
    """Writes the frozen network into a folder."""
    write_json(folder / "network.json", {"class": "DigitNet", "hidden": net.fc1.out_features})
    save_safetensors(folder / "model.safetensors", net.state_dict(), {"format": "pt"})


def load_network(folder: Path) -> DigitNet:
    """Reads what `save_network` wrote.

    Raises:
        RunError: A file is missing or damaged; names it.
    """
    config = read_json(folder / "network.json")
    try:
        net = DigitNet(int(config["hidden"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder / 'network.json'} is damaged: {error!r}") from error
    state = load_safetensors(folder / "model.safetensors")
    expected = net.state_dict()
    for key in {**expected, **state}:
        if key not in state or key not in expected or state[key].shape != expected[key].shape:
            raise RunError(
                f"{folder / 'model.safetensors'}: tensor {key!r} is missing or misshapen"
            )
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)
