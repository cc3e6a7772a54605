"""Meta-batches: some architectures with their graphs, and one batch of inputs for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from hypergen._utils.errors import UsageError
from hypergen._utils.seeding import generator as seeded
from hypergen.training.architecture_stream import ArchitectureStream, Pair, graph_of
from hypergen.training.bank import ListLoader, StepLoader
from hypergen.training.graph_module import GraphHypernetworkModule, MetaBatch
from hypergen.training.processes import check_divides
from hypergen.zoo.architectures import (
    Architecture,
    ArchitectureSpace,
    ImageProblem,
    LearningProblem,
    TextProblem,
)
from hypergen.zoo.architectures.files import save_setting


class ArchitectureDataModule(LightningDataModule):
    """Meta-batches of an architecture space for one learning problem.

    Batch i is a function of `seed` and i alone, whatever the number of workers: `meta_batch`
    architectures, of which each process trains its share, and the same inputs for all of them.
    Validation and test score unseen architectures, a batch each.

    Args:
        problem: What the architectures learn.
        space: What they are drawn from.
        meta_batch: Architectures of a step, over all processes.
        batch_size: Inputs of a step.
        max_nodes: Most nodes of the graphs of a step in one process; the rest are left out.
        max_parameters: Most parameters of the architectures of a step, likewise.
        pool: Number of training architectures; endlessly many when None.
        workers: Processes that draw and trace ahead; 0 for none.
        epoch: Steps of an epoch, after which validation runs by default.
        val_architectures: Unseen architectures of the validation.
        test_architectures: Unseen architectures of each split of the test.
        eval_samples: Inputs that each is scored on; all of the split when None.
        seed: Seed of the batches.

    Raises:
        UsageError: A number is not positive, or the space has nothing for the problem.
    """

    module_class: ClassVar[type] = GraphHypernetworkModule  # what the command line trains with

    def __init__(
        self,
        problem: LearningProblem,
        space: ArchitectureSpace,
        meta_batch: int = 4,
        batch_size: int = 64,
        max_nodes: int | None = None,
        max_parameters: int | None = None,
        pool: int | None = None,
        workers: int = 0,
        epoch: int = 250,
        val_architectures: int = 8,
        test_architectures: int = 16,
        eval_samples: int | None = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("meta_batch", meta_batch),
            ("batch_size", batch_size),
            ("max_nodes", max_nodes),
            ("max_parameters", max_parameters),
            ("pool", pool),
            ("epoch", epoch),
            ("val_architectures", val_architectures),
            ("test_architectures", test_architectures),
            ("eval_samples", eval_samples),
        ):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be positive, not {value}")
        if pool is not None and pool < meta_batch:
            raise UsageError(f"pool={pool} holds fewer architectures than meta_batch={meta_batch}")
        if workers < 0:
            raise UsageError(f"workers must not be negative, not {workers}")
        self.problem, self.space = problem, space
        self.meta_batch, self.batch_size = meta_batch, batch_size
        self.max_nodes, self.max_parameters, self.pool = max_nodes, max_parameters, pool
        self.workers, self.epoch, self.seed = workers, epoch, seed
        self.val_architectures, self.test_architectures = val_architectures, test_architectures
        self.eval_samples = eval_samples
        if "train" not in space.splits(problem.signature):
            raise UsageError(
                f"the space has no family for {problem.signature.kind}: it has "
                f"{', '.join(space.families)}"
            )

    @property
    def memory_advice(self) -> str:
        """What to lower when training runs out of memory."""
        return (
            f"lower --data.meta_batch (now {self.meta_batch}), --data.batch_size (now "
            f"{self.batch_size}) or set --data.max_parameters"
        )

    def stream(self, first: int = 0) -> ArchitectureStream:
        """The training architectures of this process, from a step on."""
        rank, world = check_divides(self, "meta_batch")
        return ArchitectureStream(
            self.space,
            self.problem,
            self.meta_batch,
            first=first,
            # Far apart, so that runs of two seeds see other architectures.
            offset=self.seed * 10**12,
            pool=self.pool,
            share=slice(rank, None, world),
            max_nodes=self.max_nodes,
            max_parameters=self.max_parameters,
        )

    def train_dataloader(self) -> StepLoader:
        """Endless meta-batches, `epoch` of them an epoch."""
        return StepLoader(_Draw(self), self.epoch)

    def val_dataloader(self) -> ListLoader:
        """Unseen architectures of the split `val`, each with validation inputs."""
        return ListLoader(self._unseen("val", self.val_architectures, "val", ""))

    def test_dataloader(self) -> ListLoader:
        """Unseen architectures of every split for the test, each with test inputs."""
        draws: list[Callable[[], Any]] = []
        for split in self.space.splits(self.problem.signature):
            if split not in ("train", "val"):
                name = "" if split == "test" else split
                draws += self._unseen(split, self.test_architectures, "test", name)
        return ListLoader(draws)

    def _unseen(self, split: str, count: int, part: str, name: str) -> list[Callable[[], Any]]:
        found = self.space.distinct(self.problem.signature, split, count)
        return [partial(self._evaluation, one, part, name) for one in found]

    def _evaluation(self, architecture: Architecture, part: str, name: str) -> MetaBatch:
        size = self.problem.size(part)
        rows = torch.arange(min(size, self.eval_samples or size))
        inputs, targets = self.problem.batch(part, rows)
        pair = [(architecture, graph_of(architecture))]
        return MetaBatch(pair, inputs, targets, name)

    def save(self, run: Path) -> None:
        """Writes what the run was trained for into its folder, for its evaluation."""
        save_setting(run, self.problem, self.space)


class _Draw:
    """Batch i: its architectures off a stream that goes on by itself, and its inputs."""

    def __init__(self, data: ArchitectureDataModule) -> None:
        self.data = data
        self._pairs: Iterator[list[Pair]] | None = None
        self._next = -1

    def __call__(self, number: int) -> Any:
        data = self.data
        if self._pairs is None or number != self._next:
            stream = data.stream(number)
            self._pairs = iter(_ahead(stream, data.workers) if data.workers else stream)
        pairs = next(self._pairs)
        self._next = number + 1
        inputs, targets = data.problem.draw(data.batch_size, seeded("inputs", data.seed, number))
        return MetaBatch(pairs, inputs, targets)


def _ahead(stream: ArchitectureStream, workers: int) -> DataLoader[list[Pair]]:
    """The same from processes, spawned: forking is unsafe once threads or CUDA are in use."""
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4,
        multiprocessing_context="spawn",
    )


class ImageArchitectures(ArchitectureDataModule):
    """Networks that classify images; see `ArchitectureDataModule` for the other arguments.

    Args:
        source: `digits`, `mnist` or `cifar10`, see `ImageProblem`.
        pixels: Height and width to which images are reduced; their own when None.
        samples: Number of training images to keep; all when None.
        augment: Whether training images are shifted and, of CIFAR-10, flipped.
        folder: Folder of the images' parquet files; `$HYPERGEN_DATA/vision` when None.
        space: The architectures.
        **options: See `ArchitectureDataModule`.
    """

    def __init__(
        self,
        source: str = "digits",
        pixels: int | None = None,
        samples: int | None = None,
        augment: bool = False,
        folder: str | None = None,
        space: ArchitectureSpace | None = None,
        **options: Any,
    ) -> None:
        self.source, self.pixels, self.samples, self.augment = source, pixels, samples, augment
        self.folder = folder
        problem = ImageProblem(source, pixels, samples, augment, folder)
        super().__init__(problem=problem, space=space or ArchitectureSpace(), **options)


class TextArchitectures(ArchitectureDataModule):
    """Language models of characters; see `ArchitectureDataModule` for the other arguments.

    Args:
        path: A file of text, see `TextProblem`.
        context: Characters that a network reads at a time.
        space: The architectures.
        **options: See `ArchitectureDataModule`.
    """

    def __init__(
        self,
        path: str | None = None,
        context: int = 64,
        space: ArchitectureSpace | None = None,
        **options: Any,
    ) -> None:
        self.path, self.context = path, context
        space = space or ArchitectureSpace({"gpt": 1.0, "llama": 1.0})
        super().__init__(problem=TextProblem(path, context), space=space, **options)
