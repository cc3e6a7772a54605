"""What generators for architectures are saved as."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hypergen._utils.errors import ConditionError, RunError
from hypergen._utils.io import load_safetensors, read_json
from hypergen.generators.storage import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    download,
    load_strict,
    model_card,
    save_generator,
)

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing from Python 3.11 on

FORMAT_VERSION = 1


class SavedModule(nn.Module):
    """A module that is rebuilt from its arguments.

    Attributes:
        config: Its constructor's arguments, JSON-serialisable.
        provenance: What it was made from, for cards.
    """

    config: dict[str, Any]
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the tensors, JSON-serialisable: class and arguments."""
        return {
            "format_version": FORMAT_VERSION,
            "class": type(self).__name__,
            "init_args": self.config,
            "provenance": self.provenance,
        }

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Writes config, tensors and a model card, atomically.

        Args:
            folder: Where to write; a folder of that name is replaced.
            dtype: Store floating-point tensors rounded to this.

        Raises:
            WeightsError: A parameter is NaN or infinite, or becomes infinite in `dtype`.
        """
        return save_generator(folder, self, self.to_dict(), self._card(), dtype)

    def _card(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        text = (
            f"Generates all weights of an architecture from its graph, with {count:,} "
            f"parameters (encoder `{self.config['encoder']['name']}`, decoder "
            f"`{self.config['decoder']['name']}`)."
        )
        use = (
            "`hypergen init MODEL --generator FOLDER --out model.safetensors`, or in Python "
            "`hypergen.init_(model, hypergen.load(folder))`."
        )
        return model_card(self, self.provenance, text, use)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Reads what `save_pretrained` wrote; every tensor must be there and fit.

        Args:
            folder: A folder on this machine, or the name of a hub repository.

        Raises:
            RunError: The folder is missing, of another version, or damaged; names the file.
        """
        folder = Path(download(str(folder)))
        path = folder / CONFIG_FILE
        generator = cls.from_dict(read_json(path), origin=str(path))
        path = folder / WEIGHTS_FILE
        load_strict(generator, load_safetensors(path), str(path))
        return generator.eval()

    @classmethod
    def from_dict(
        cls, config: Mapping[str, Any], *, origin: str = "the generator's config"
    ) -> Self:
        """Rebuilds a generator, freshly initialised, from `to_dict`.

        Raises:
            RunError: The config is of another version or class, or damaged.
        """
        try:
            if config["format_version"] != FORMAT_VERSION:
                raise RunError(
                    f"{origin} has format version {config['format_version']}; this hypergen reads "
                    f"{FORMAT_VERSION}"
                )
            if config["class"] != cls.__name__:
                raise RunError(
                    f"{origin} is of a {config['class']}, not of a {cls.__name__}: "
                    "hypergen.load reads either"
                )
            generator = cls(**config["init_args"])
            generator.provenance = dict(config["provenance"])
        except (KeyError, TypeError, ConditionError) as error:
            raise RunError(f"{origin} is damaged: {error}") from error
        return generator
