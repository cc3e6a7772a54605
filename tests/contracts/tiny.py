"""Tiny models, made by seed and without any file, that the tests of the contract share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Two hidden layers with layer norm; `fc2` is square."""

    def __init__(self, norm: bool = False, hidden: int = 12, inputs: int = 8) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.norm = nn.LayerNorm(hidden) if norm else nn.Identity()
        self.fc2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.relu(self.fc1(x)))
        return self.out(torch.relu(self.fc2(x)))


class ConvNet(nn.Module):
    """A convolution, batch norm with statistics, group norm, a scalar and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.gn = nn.GroupNorm(2, 4)
        self.temperature = nn.Parameter(torch.ones(()))
        self.fc = nn.Linear(4, 3)
        self.bn.running_mean.copy_(torch.linspace(-0.1, 0.1, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        x = torch.relu(self.gn(self.conv2(x)))
        return self.temperature * self.fc(x.mean((-1, -2)))


class Tied(nn.Module):
    """A language model's skeleton whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mid = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mid(self.embed(ids))))


class Tagger(nn.Module):
    """An embedding and linear layers: embedding and linear LoRAs share the shape of their B."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.fc1 = nn.Linear(6, 6)
        self.fc2 = nn.Linear(6, 6)

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.fc1(self.embed(ids))))


class Nested(nn.Module):
    """Two modules whose paths end alike: `fc` and `block.fc`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.block = nn.Sequential()
        self.block.fc = nn.Linear(8, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.block(torch.tanh(self.fc(x)))))


def llama() -> nn.Module:
    """A random Llama with two layers, four query heads and two key-value heads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=19,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def gpt2() -> nn.Module:
    """A random GPT-2 with two layers: Conv1D modules, tied embeddings."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=19,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    return GPT2LMHeadModel(config)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": MLP,
    "mlp_norm": lambda: MLP(norm=True),
    "mlp_wide": lambda: MLP(hidden=16, inputs=16),
    "conv": ConvNet,
    "tied": Tied,
    "tagger": Tagger,
    "nested": Nested,
    "llama": llama,
    "gpt2": gpt2,
}


def make(name: str, seed: int = 0) -> nn.Module:
    """A fresh model, the same at every call; biases and norms are moved off their start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MODELS[name]().eval()
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.dim() < 2:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@cache
def model(name: str) -> nn.Module:
    """The shared copy, for tests that leave it as it is."""
    return make(name)


def batch(name: str, samples: int, seed: int = 0) -> Any:
    """An input of a model: a tensor, or keyword arguments for a language model."""
    generator = torch.Generator().manual_seed(seed)
    if name in ("llama", "gpt2"):
        ids = torch.randint(1, 19, (samples, 5), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name in ("tied", "tagger"):
        return torch.randint(0, 11, (samples, 4), generator=generator)
    if name == "conv":
        return torch.randn(samples, 1, 7, 7, generator=generator)
    return torch.randn(samples, 16 if name == "mlp_wide" else 8, generator=generator)


def rows(inputs: Any, start: int, stop: int) -> Any:
    """Some samples of an input."""
    if isinstance(inputs, dict):
        return {key: value[start:stop] for key, value in inputs.items()}
    return inputs[start:stop]


def logits(output: Any) -> Tensor:
    """The numbers of an output: itself, or a language model's logits."""
    return output if isinstance(output, Tensor) else output.logits
