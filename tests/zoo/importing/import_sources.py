"""Makers of what an import reads: PEFT's own folders, state dicts, hostile files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import Tensor, nn

from hypergen.zoo.importing import ImportReport

ADVICE = (
    "`is_gradient_checkpointing` is deprecated",  # PEFT's own call of transformers
    "Setting `save_embedding_layers` to `True`",
    "Could not find a config file",
    "Unsupported layer type",
    "Specified to not (save|load) vera_A and vera_B",
    "Adapter 'default': 2 LoRA tensor",  # biases of lora_bias, taken for shards
)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """A block in which PEFT's advice on correct uses of it is no error."""
    with warnings.catch_warnings():
        for message in ADVICE:
            warnings.filterwarnings("ignore", message=message)
        yield


def save_adapter(folder: Path, model: str, config: Any, seed: int = 0) -> nn.Module:
    """Saves a random adapter of a tiny model as stock PEFT does, and returns PEFT's model."""
    from peft import get_peft_model

    with quiet_peft(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = get_peft_model(tiny.make(model), config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.add_(0.2 * noise.to(parameter.dtype))
        config.base_model_name_or_path = f"org/{model}"
        wrapped.save_pretrained(folder)
    return wrapped.eval()


def load_adapter(folder: Path, model: str) -> nn.Module:
    """What stock PEFT makes of a folder."""
    from peft import PeftModel

    with quiet_peft():
        return PeftModel.from_pretrained(tiny.make(model), folder).eval()


def outputs(net: nn.Module, model: str) -> Tensor:
    """Logits on a fixed batch."""
    inputs = tiny.batch(model, 4)
    with torch.no_grad():
        return tiny.logits(net(**inputs) if isinstance(inputs, dict) else net(inputs))


def reasons(report: ImportReport) -> dict[str, str]:
    """Path → reason of every skipped file."""
    return {entry.path: entry.reason for entry in report.of("skipped")}


def state(seed: int = 0, hidden: int = 3) -> dict[str, Tensor]:
    """State dict of a small network with batch norm."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 2))
    return {name: value.clone() for name, value in net.state_dict().items()}


class Bomb:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)
