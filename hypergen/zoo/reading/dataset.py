"""A zoo as a PyTorch data set: flat rows, named slots or windows of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hypergen._utils.errors import UsageError, WeightsError
from hypergen._utils.seeding import stable_seed
from hypergen.specs import TokenLayout
from hypergen.zoo.reading.filters import metric_names, metric_values
from hypergen.zoo.reading.normalizer import Normalizer
from hypergen.zoo.store import Zoo

Form = Literal["flat", "slots", "tokens"]
Augment = Callable[[Tensor, Tensor], Tensor]


class ZooDataset(Dataset[dict[str, Any]]):
    """Checkpoints of one architecture, read from the mapped files as they are asked for.

    A sample is a dictionary:

    - `weights`: `[numel]`; or slot name → `[*shape]`; or tokens `[window, size]`;
    - `mask` (tokens only): `[window, size]`, False where a token is padded (with zeros);
    - `positions` (tokens only): `[window, 3]`, see `TokenLayout.positions`;
    - `row`: position in `zoo`; `task`: position in `tasks`, -1 without one;
    - `metrics`: `"split.name"` → value in float64, NaN where a checkpoint has none.

    A list of indices gives a batch of the same keys, read in one gather. `DataLoader` asks for
    whole batches (`__getitems__`), with any number of workers: each maps the same files, and the
    page cache holds one copy of the zoo for all. `DataLoader(dataset, sampler=BatchSampler(…),
    batch_size=None)` moreover saves the copy that collating costs. Shards that were checked before
    workers fork are not hashed by each of them again: open the zoo with `verify="open"`.

    Nothing depends on batches or workers: what is random about a sample is drawn from (seed,
    epoch, index).

    Args:
        zoo: Checkpoints of one architecture.
        form: What a sample's weights are: `"flat"`, `"slots"` or `"tokens"`.
        slots: Names of the slots to read, all when not given (`form="slots"`).
        layout: How weights are cut (`form="tokens"`).
        window: Tokens of a sample; all when not given (`form="tokens"`).
        starts: `"random"`: a sample is a checkpoint, its window starts anywhere; `"sliding"`: a
            sample is one of the windows of a checkpoint, which together cover it.
        stride: Tokens from one sliding window to the next; `window` when not given.
        normalizer: Makes z-scores of the numbers.
        augment: Called before that with whole rows `[B, numel]` and a seed `[B]` (int64) for each;
            returns rows of the same shape; see `RandomPermutation`.
        metrics: Names of the metrics to return, `"split.name"`; all when not given.
        seed: What random starts and augmentations are drawn from.

    Raises:
        UsageError: Several architectures, or options that contradict each other.
        SpecError: An unknown slot.
        WeightsError: The layout or the normaliser is of another spec.
    """

    def __init__(
        self,
        zoo: Zoo,
        form: Form = "flat",
        *,
        slots: Sequence[str] | None = None,
        layout: TokenLayout | None = None,
        window: int | None = None,
        starts: Literal["random", "sliding"] = "random",
        stride: int | None = None,
        normalizer: Normalizer | None = None,
        augment: Augment | None = None,
        metrics: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        if form not in get_args(Form):
            raise UsageError(f"a sample is flat, slots or tokens, not {form!r}")
        if form != "slots" and slots is not None:
            raise UsageError("slots are chosen with form='slots'")
        if (form == "tokens") != (layout is not None) or (form != "tokens" and window is not None):
            raise UsageError("form='tokens' needs a layout, and layout and window need that form")
        self.zoo, self.spec, self.form, self.seed = zoo, zoo.spec, form, seed
        for name, part in (("layout", layout), ("normalizer", normalizer)):
            if part is not None and part.spec != self.spec:
                raise WeightsError(f"the {name} was made for another spec than these checkpoints'")
        self.normalizer, self.augment = normalizer, augment
        self.tasks = tuple(zoo.tasks)
        number = {task: i for i, task in enumerate(self.tasks)}
        self._task = torch.tensor([number.get(row.task, -1) for row in zoo.rows])
        names = metric_names(zoo) if metrics is None else metrics
        self._metrics = {name: torch.from_numpy(metric_values(zoo, name)) for name in names}
        # Shared, so that workers that live on see the epoch too.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()
        self._windows: _Windows | None = None
        if layout is not None:
            self._windows = _Windows(layout, window, starts, stride)
        elif form == "slots":
            chosen = list(self.spec.names if slots is None else slots)
            if not chosen:
                raise UsageError("form='slots' needs at least one slot")
            self._slots = {name: self.spec[name].shape for name in chosen}
            numels = [slot.numel for slot in self.spec]
            ends = np.cumsum(numels)
            places = [self.spec.names.index(name) for name in chosen]
            self._low = int(min(ends[i] - numels[i] for i in places))
            self._span = int(max(ends[i] for i in places)) - self._low
            self._offsets = [int(ends[i] - numels[i]) - self._low for i in places]

    def __len__(self) -> int:
        return len(self.zoo) * (self._windows.per_row if self._windows is not None else 1)

    def set_epoch(self, epoch: int) -> None:
        """Sets what random starts and augmentations are drawn for, in running workers as well."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int | Sequence[int]) -> dict[str, Any]:
        """One sample, or for a list of indices a batch of samples."""
        if isinstance(index, (int, np.integer)):
            return _sample(self.batch([int(index)]), 0)
        return self.batch(index)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Samples that are views of one batch; what `DataLoader` calls."""
        batch = self.batch(indices)
        return [_sample(batch, i) for i in range(len(indices))]

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> dict[str, Any]:
        """Reads samples in one gather; the keys are those of a sample, with an axis `[B]` first."""
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and not -len(self) <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"the data set has {len(self)} samples; an index is out of range")
        wanted = wanted % max(1, len(self))
        out: dict[str, Any] = {}
        if self._windows is not None:
            rows = wanted // self._windows.per_row
            first = self._windows.first(wanted, self._draw("start", wanted))
            tokens = torch.from_numpy(first)[:, None] + torch.arange(self._windows.count)
            low = self._windows.low[first]
            numbers = self._read(wanted, rows, low, self._windows.span)
            out["weights"] = self._windows.cut(numbers, tokens, low)
            out["mask"] = self._windows.layout.mask[tokens]
            out["positions"] = self._windows.positions[tokens]
        elif self.form == "slots":
            rows = wanted
            numbers = self._read(wanted, rows, np.full(len(rows), self._low), self._span)
            out["weights"] = {
                name: numbers[:, offset : offset + shape.numel()].unflatten(1, shape)
                for (name, size), offset in zip(self._slots.items(), self._offsets, strict=True)
                for shape in [torch.Size(size)]
            }
        else:
            rows = wanted
            out["weights"] = self._read(wanted, rows, np.zeros_like(rows), self.spec.numel)
        out["row"] = torch.from_numpy(rows)
        out["task"] = self._task[out["row"]]
        out["metrics"] = {name: values[out["row"]] for name, values in self._metrics.items()}
        return out

    def _read(self, wanted: np.ndarray, rows: np.ndarray, low: np.ndarray, length: int) -> Tensor:
        """`[B, length]` numbers from `low` on, augmented and normalised."""
        numel = self.spec.numel
        if self.augment is not None:
            # The numbers of a window may come from anywhere in the row.
            seeds = torch.from_numpy(
                (self._draw("augment", wanted) >> np.uint64(1)).astype(np.int64)
            )
            whole = self.augment(self.zoo.flat(rows), seeds)
            at = torch.from_numpy(np.arange(len(rows)) * numel + low)
            flat = whole if length == numel else whole.flatten().unfold(0, length, 1)[at]
        elif length == numel:
            flat = self.zoo.flat(rows)
        else:
            flat = self.zoo.spans(rows, low, length)
        if self.normalizer is None:
            return flat
        if length == numel:
            return self.normalizer.encode(flat)
        start = torch.from_numpy(low)
        mean, std = (x.unfold(0, length, 1) for x in (self.normalizer.mean, self.normalizer.std))
        return (flat - mean[start]) / std[start]

    def _draw(self, purpose: str, wanted: np.ndarray) -> np.ndarray:
        """A random uint64 for each sample, from (seed, epoch, index) alone."""
        return mixed(stable_seed(purpose, self.seed, int(self._epoch)), wanted)


class _Windows:
    """Runs of `count` tokens of a layout, and the part of the flat vector that each spans."""

    def __init__(
        self, layout: TokenLayout, count: int | None, starts: str, stride: int | None
    ) -> None:
        total = len(layout)
        if count is not None and not 1 <= count <= total:
            raise UsageError(f"a window has 1 to {total} tokens, not {count}")
        if starts not in ("random", "sliding"):
            raise UsageError(f"windows start random or sliding, not {starts!r}")
        if stride is not None and (starts == "random" or stride < 1):
            raise UsageError("a stride is positive and for sliding windows")
        self.layout = layout
        self.count = total if count is None else count
        self.positions = layout.positions
        self.last = total - self.count  # the last start
        self.fixed: np.ndarray | None = None
        if starts == "sliding":
            # The last window goes back a little, so that none is short and none is missing.
            step = stride or self.count
            self.fixed = np.unique([*range(0, self.last + 1, step), self.last])
        self.per_row = 1 if self.fixed is None else len(self.fixed)
        numel = layout.spec.numel
        self.begin = layout.index[:, 0].contiguous()
        end = layout.index.amax(1).numpy() + 1
        low = self.begin[: self.last + 1].numpy()
        self.span = int((end[self.count - 1 :] - low).max())
        self.low = np.minimum(low, numel - self.span)

    def first(self, wanted: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """`[B]`, first token of each window."""
        if self.fixed is not None:
            return self.fixed[wanted % self.per_row]
        return (draws % np.uint64(self.last + 1)).astype(np.int64)

    def cut(self, numbers: Tensor, tokens: Tensor, low: np.ndarray) -> Tensor:
        """Numbers `[B, span]` from `low` on → tokens `[B, count, size]`, zero under the mask."""
        mask, size = self.layout.mask[tokens], self.layout.size
        # A token is `size` numbers in a row, some of them under the mask; the last ones may reach
        # past the end.
        padded = torch.nn.functional.pad(numbers, (0, size))
        row = torch.arange(len(numbers))[:, None] * padded.shape[1]
        at = row + self.begin[tokens] - torch.from_numpy(low)[:, None]
        found = padded.flatten().unfold(0, size, 1).index_select(0, at.flatten())
        return found.view(mask.shape).masked_fill_(~mask, 0)


def mixed(seed: int, index: np.ndarray) -> np.ndarray:
    """Hashes numbers to random uint64: SplitMix64 with `seed` as its state.

    Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
    """
    golden, a, b = (
        np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
    )
    z = np.uint64(seed) + (np.atleast_1d(index).astype(np.uint64) + np.uint64(1)) * golden
    z = (z ^ (z >> np.uint64(30))) * a
    z = (z ^ (z >> np.uint64(27))) * b
    return z ^ (z >> np.uint64(31))


def _sample(batch: dict[str, Any], i: int) -> dict[str, Any]:
    return {
        key: _sample(value, i) if isinstance(value, dict) else value[i]
        for key, value in batch.items()
    }
