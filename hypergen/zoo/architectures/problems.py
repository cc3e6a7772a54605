"""What the networks of an architecture space are for: images to classify, text to continue."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import RunError, UsageError, did_you_mean
from hypergen.zoo.architectures.base import Signature
from hypergen.zoo.ensemble.data import CIFAR10, DATA_VARIABLE, MNIST, Digits, ImageSource

SOURCES = ("digits", "mnist", "cifar10")


@dataclass(frozen=True)
class LearningProblem(ABC):
    """Inputs and right answers, of the splits train, val and test; known by its class name."""

    _classes: ClassVar[dict[str, type[LearningProblem]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        LearningProblem._classes[cls.__name__] = cls

    @property
    @abstractmethod
    def signature(self) -> Signature:
        """What a network for it reads and puts out."""

    @abstractmethod
    def size(self, split: str) -> int:
        """How many inputs a split has."""

    @abstractmethod
    def batch(self, split: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some rows of a split."""

    def draw(
        self, count: int, generator: torch.Generator, split: str = "train"
    ) -> tuple[Tensor, Tensor]:
        """Random inputs and their targets."""
        rows = torch.randint(self.size(split), (count,), generator=generator)
        return self.batch(split, rows)

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy, in nats.

        Args:
            outputs: `[N, …, classes]`.
            targets: `[N, …]`.
            smoothing: Share of each target that is spread over all classes.
        """
        flat = outputs.flatten(0, -2).float()
        return F.cross_entropy(flat, targets.flatten(), label_smoothing=smoothing)

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Share of right answers of each input, `[N]`."""
        hits = (outputs.argmax(-1) == targets).float()
        return hits.reshape(len(hits), -1).mean(1)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: class name and arguments."""
        return {"class": type(self).__name__, "init_args": asdict(self)}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> LearningProblem:
        """Rebuilds any problem from `to_dict`.

        Raises:
            RunError: Unknown class or argument.
        """
        try:
            return LearningProblem._classes[data["class"]](**data["init_args"])
        except (KeyError, TypeError) as error:
            raise RunError(f"not a problem of networks: {error!r}") from error


@dataclass(frozen=True)
class ImageProblem(LearningProblem):
    """Images and their classes.

    Attributes:
        source: `digits` (8 × 8, comes with the package), `mnist` or `cifar10`.
        pixels: Height and width to which images are reduced; their own when None.
        samples: Number of training images to keep; all when None.
        augment: Whether training images are shifted by up to an eighth, and, of CIFAR-10, flipped.
        folder: Folder of the parquet files; `$HYPERGEN_DATA/vision` when None.

    Raises:
        UsageError: An unknown source.
    """

    source: str = "digits"
    pixels: int | None = None
    samples: int | None = None
    augment: bool = False
    folder: str | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            hint = did_you_mean(self.source, SOURCES)
            raise UsageError(f"unknown source of images {self.source!r}.{hint}")
        if self.source == "digits" and (self.pixels or self.samples or self.folder):
            raise UsageError("digits come as they are: leave pixels, samples and folder out")

    def _images(self) -> Any:
        source: ImageSource = Digits()
        if self.source != "digits":
            cls = MNIST if self.source == "mnist" else CIFAR10
            source = cls(folder=self.folder, size=self.pixels, samples=self.samples)
        return source.load()

    @property
    def signature(self) -> Signature:
        """Images → classes."""
        data = self._images()
        return Signature("images", tuple(data.images["train"].shape[1:]), len(data.classes))

    def size(self, split: str) -> int:
        """How many images a split has."""
        return len(self._images().labels[split])

    def batch(self, split: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """`[N, C, H, W]` images and `[N]` classes."""
        data = self._images()
        # With channels last, convolutions on a CPU take a fifth less time.
        images = data.images[split][rows].contiguous(memory_format=torch.channels_last)
        return images, data.labels[split][rows]

    def draw(
        self, count: int, generator: torch.Generator, split: str = "train"
    ) -> tuple[Tensor, Tensor]:
        """Random images, changed a little if so asked, and their classes."""
        images, labels = super().draw(count, generator, split)
        if self.augment and split == "train":
            images = augmented(images, generator, flip=self.source == "cifar10")
        return images, labels


def augmented(images: Tensor, generator: torch.Generator, flip: bool) -> Tensor:
    """Shifts each image by up to an eighth of its side, over zeros, and flips every other one."""
    count, _, height, width = images.shape
    most = max(1, height // 8)
    shift = torch.randint(-most, most + 1, (2, count), generator=generator)
    rows = torch.arange(height) + shift[0][:, None] + most
    columns = torch.arange(width) + shift[1][:, None] + most
    if flip:
        flips = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(flips[:, None], columns.flip(1), columns)
    padded = F.pad(images, (most, most, most, most))
    each = torch.arange(count)[:, None, None]
    # Advanced indices around a slice put the channels last, where convolutions want them.
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class TextProblem(LearningProblem):
    """Text, character by character: each character's successor is to be told.

    Attributes:
        path: A file of text; the first nine tenths are for training, the rest in equal parts for
            validation and test. `$HYPERGEN_DATA/stories/tinyshakespeare.txt` when None.
        context: Characters that a network reads at a time.
    """

    path: str | None = None
    context: int = 64

    def __post_init__(self) -> None:
        if self.context < 2:
            raise UsageError(f"context must be at least 2 characters, not {self.context}")

    @property
    def characters(self) -> str:
        """The vocabulary: all characters of the file, sorted."""
        return _text(self._file())[1]

    @property
    def signature(self) -> Signature:
        """Characters → characters."""
        return Signature("tokens", (self.context,), len(self.characters))

    def size(self, split: str) -> int:
        """How many windows a split has.

        Any place of the training text may begin one; those of val and test do not overlap.

        Raises:
            UsageError: The text is too short.
        """
        places = len(self._part(split)) - self.context
        size = places if split == "train" else places // self.context
        if size < 1:
            raise UsageError(f"{self._file()} is too short for {self.context} characters at a time")
        return size

    def batch(self, split: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """`[N, T]` characters and those that follow."""
        start = rows if split == "train" else rows * self.context
        found = self._part(split)[start[:, None] + torch.arange(self.context + 1)]
        return found[:, :-1], found[:, 1:]

    def _part(self, split: str) -> Tensor:
        tokens, _ = _text(self._file())
        a, b = int(0.9 * len(tokens)), int(0.95 * len(tokens))
        return {"train": tokens[:a], "val": tokens[a:b], "test": tokens[b:]}[split]

    def _file(self) -> str:
        if self.path is not None:
            return self.path
        folder = os.environ.get(DATA_VARIABLE)
        if not folder:
            raise RunError(
                "a file of text is needed: give it as `path`, or set "
                f"{DATA_VARIABLE} to the folder that holds stories/tinyshakespeare.txt"
            )
        return str(Path(folder) / "stories" / "tinyshakespeare.txt")


@lru_cache(maxsize=4)
def _text(path: str) -> tuple[Tensor, str]:
    """Numbers of all characters of a file, and the characters."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    characters = "".join(sorted(set(text)))
    if len(characters) < 2:
        raise UsageError(f"{path} holds no text")
    codes = torch.tensor([ord(c) for c in characters])
    points = torch.frombuffer(bytearray(text.encode("utf-32-le")), dtype=torch.int32).long()
    return torch.searchsorted(codes, points), characters
