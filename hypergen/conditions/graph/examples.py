"""Architectures that `hypergen graph` knows by name, small, to look at and to try things on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Two convolutions with batch norm, around which the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` → the same."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(inner)))


class UNet(nn.Module):
    """Two scales with group norm and a skip connection."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()

        def stage(i: int, o: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(4, o), nn.SiLU())

        self.down, self.middle = stage(3, width), stage(width, 2 * width)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.join, self.out = stage(2 * width, width), nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 3, H, W]` → the same."""
        skip = self.down(x)
        up = self.up(self.middle(self.pool(skip)))
        return self.out(self.join(torch.cat([up, skip], 1)))


class LSTM(nn.Module):
    """A language model of characters."""

    def __init__(self, vocabulary: int = 64, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, T]` tokens → `[B, T, V]` logits."""
        return self.head(self.lstm(self.embedding(tokens))[0])


def _mlp() -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in ((64, 32), (32, 32), (32, 10)):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _resnet() -> nn.Module:
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = nn.Sequential(*(Residual(16) for _ in range(3)))
    return nn.Sequential(*stem, blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def _transformers(config: str, model: str, **sizes: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**sizes))
        return made

    return build


EXAMPLES: dict[str, Callable[[], nn.Module]] = {
    "mlp": _mlp,
    "resnet": _resnet,
    "unet": UNet,
    "lstm": LSTM,
    "gpt2": _transformers(
        "GPT2Config", "GPT2LMHeadModel", vocab_size=64, n_positions=64, n_embd=32, n_layer=2,
        n_head=2, bos_token_id=0, eos_token_id=0,
    ),
    "llama": _transformers(
        "LlamaConfig", "LlamaForCausalLM", vocab_size=64, hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=2,
    ),
    "vit": _transformers(
        "ViTConfig", "ViTForImageClassification", image_size=32, patch_size=4, hidden_size=32,
        intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    ),
}  # fmt: skip
