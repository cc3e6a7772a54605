"""Reading a zoo: one checkpoint, one slot over all of them, or a window of tokens is a slice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hypergen._utils.errors import RunError, UsageError, WeightsError, did_you_mean
from hypergen.specs import TokenLayout, Weights, WeightSpec
from hypergen.zoo.store.gather import gather
from hypergen.zoo.store.manifest import read_part
from hypergen.zoo.store.paths import part_numbers
from hypergen.zoo.store.records import Architecture, Row, Task
from hypergen.zoo.store.shards import Shards, Verify
from hypergen.zoo.store.writer import read_header

Indices = int | slice | Sequence[int] | np.ndarray | Tensor


class Zoo:
    """A folder of checkpoints, read without copying it into memory.

    The header and the manifest are read and checked when the zoo is opened, the numbers when they
    are used: shards are mapped, so that several processes share one copy in the page cache. Views
    (`select`, `zoo[indices]`) share them too. A zoo can be handed to worker processes; each maps
    the files again.

    Args:
        folder: The folder.
        verify: When the numbers are compared with their hashes: `"lazy"`, each shard before its
            first use; `"open"`, all of them at once; `"never"`, only their sizes.

    Attributes:
        folder: The folder.
        header: Name, licence, task table, architectures, provenance.
        rows: The good checkpoints, in order of parts.
        quarantined: Checkpoints with NaN or infinity, which nothing here reads.

    Raises:
        RunError: A file is missing, damaged or malformed, or a path leaves the folder.
    """

    def __init__(self, folder: str | Path, verify: Verify = "lazy") -> None:
        if verify not in ("lazy", "open", "never"):
            raise UsageError(f"verify is 'lazy', 'open' or 'never', not {verify!r}")
        self.folder = Path(folder)
        self.header = read_header(self.folder)
        rows: list[Row] = []
        entries: dict[str, Any] = {}
        for part in part_numbers(self.folder):
            part_rows, shards = read_part(self.folder, part)
            entries.update(shards)
            rows += part_rows
        for row in rows:
            if row.architecture not in self.header.architectures:
                raise RunError(
                    f"{self.folder}: {row.label} has the architecture {row.architecture!r}, which "
                    "the header does not know"
                )
        self.rows = tuple(row for row in rows if not row.quarantined)
        self.quarantined = tuple(row for row in rows if row.quarantined)
        self._shards = Shards(self.folder, entries, verify)
        self._caches: dict[str, Any] = {}  # what is read off the rows once
        if verify == "open":
            self._shards.map_all()

    # -- what there is -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        kinds = {row.architecture for row in self.rows}
        return f"Zoo({self.header.name!r}, {len(self):,} checkpoints of {len(kinds)} architectures)"

    @property
    def complete(self) -> bool:
        """Whether every part that the header announces is there."""
        parts = self.header.parts
        return parts is None or len(part_numbers(self.folder)) == parts

    @property
    def tasks(self) -> dict[str, Task]:
        """The task table."""
        return self.header.tasks

    @property
    def architectures(self) -> dict[str, Architecture]:
        """The architectures that occur in these rows."""
        if "architectures" not in self._caches:
            present = {row.architecture for row in self.rows}
            found = {key: a for key, a in self.header.architectures.items() if key in present}
            self._caches["architectures"] = found
        return dict(self._caches["architectures"])

    @property
    def architecture(self) -> Architecture:
        """The one architecture of these rows.

        Raises:
            UsageError: There are several, or none.
        """
        found = self.architectures
        if len(found) != 1:
            raise UsageError(
                f"these {len(self)} checkpoints have {len(found)} architectures"
                + (f" ({', '.join(found)}): pick one by select(architecture=…)" if found else "")
            )
        return next(iter(found.values()))

    @property
    def spec(self) -> WeightSpec:
        """The spec of the one architecture of these rows; see `architecture`."""
        return self.architecture.spec

    def metric(self, split: str, name: str) -> np.ndarray:
        """`[N]` values of a metric in float64, NaN where a checkpoint has none."""
        values = (row.metrics.get(split, {}).get(name) for row in self.rows)
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    def column(self, name: str) -> list[Any]:
        """A field of every row, or one of its hyperparameters as `"hyperparameters.lr"`."""
        field, _, key = name.partition(".")
        if self.rows and not hasattr(self.rows[0], field):
            hint = did_you_mean(field, (f.name for f in fields(Row)))
            raise UsageError(f"a row has no field {field!r}.{hint}")
        values = (getattr(row, field) for row in self.rows)
        return [value.get(key) for value in values] if key else list(values)

    # -- choosing ------------------------------------------------------------------------------

    def select(
        self,
        *,
        architecture: str | None = None,
        task: str | Collection[str] | None = None,
        run: str | Collection[str] | None = None,
        step: int | Collection[int] | Literal["last"] | None = None,
        where: Callable[[Row], bool] | None = None,
    ) -> Zoo:
        """A view of some of the checkpoints, in the same order.

        Args:
            architecture: Key of an architecture.
            task: Name or names of tasks.
            run: Name or names of runs.
            step: Step or steps; `"last"` for the last checkpoint of each run.
            where: Any other condition on the row.

        Raises:
            UsageError: An architecture or task that the zoo does not have.
        """
        if architecture is not None and architecture not in self.header.architectures:
            hint = did_you_mean(architecture, self.header.architectures)
            raise UsageError(f"the zoo has no architecture {architecture!r}.{hint}")
        tasks = None if task is None else {task} if isinstance(task, str) else set(task)
        for name in sorted(tasks or ()):
            if name not in self.header.tasks:
                hint = did_you_mean(name, self.header.tasks)
                raise UsageError(f"the zoo has no task {name!r}.{hint}")
        runs = None if run is None else {run} if isinstance(run, str) else set(run)
        last: dict[str, int] = {}
        for row in self.rows:
            last[row.run] = max(row.step, last.get(row.run, row.step))

        def at_step(row: Row) -> bool:
            if step is None or isinstance(step, str):
                return step is None or row.step == last[row.run]
            return row.step == step if isinstance(step, int) else row.step in step

        keep = [
            i
            for i, row in enumerate(self.rows)
            if (architecture is None or row.architecture == architecture)
            and (tasks is None or row.task in tasks)
            and (runs is None or row.run in runs)
            and at_step(row)
            and (where is None or where(row))
        ]
        return self[keep]

    def __getitem__(self, indices: Indices) -> Zoo:
        """A view of the checkpoints at some positions, in that order."""
        view = object.__new__(Zoo)
        view.__dict__.update(self.__dict__)
        view.rows = tuple(self.rows[i] for i in self._positions(indices).tolist())
        view._caches = {}
        return view

    def _positions(self, indices: Indices) -> np.ndarray:
        """Positions from 0, for any way to give them."""
        if isinstance(indices, slice):
            return np.arange(len(self))[indices]
        positions = np.atleast_1d(np.asarray(indices))
        if positions.dtype == bool:
            positions = np.flatnonzero(positions)
        if positions.size == 0:
            return np.zeros(0, int)
        if not -len(self) <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"the zoo has {len(self)} checkpoints; an index is out of range")
        found: np.ndarray = positions % len(self)
        return found

    # -- numbers -------------------------------------------------------------------------------

    def flat(self, indices: Indices | None = None, out: Tensor | None = None) -> Tensor:
        """`[N, numel]` numbers of some checkpoints (all by default), copied out of the files.

        Args:
            indices: Which, in this order.
            out: Where to put them; a new tensor when not given.

        Raises:
            RunError: A shard is missing or damaged.
            WeightsError: `out` has another shape or dtype.
        """
        return self._columns(indices, 0, self.spec.numel, out)

    def weights(self, indices: Indices | None = None) -> Weights:
        """Some checkpoints as `Weights`, tagged with their runs and steps."""
        view = self if indices is None else self[indices]
        out = self.spec.from_flat(view.flat())
        out.provenance = {
            "zoo": self.header.name,
            "runs": [row.run for row in view.rows],
            "steps": [row.step for row in view.rows],
        }
        return out

    def slot(self, name: str, indices: Indices | None = None) -> Tensor:
        """`[N, *shape]`, one slot over some checkpoints; only its bytes are read."""
        spec = self.spec
        slot = spec[name]
        offset = sum(s.numel for s in spec.slots[: spec.names.index(name)])
        return self._columns(indices, offset, offset + slot.numel).unflatten(1, slot.shape)

    def tokens(
        self,
        layout: TokenLayout,
        indices: Indices | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Tensor:
        """`[N, T, size]`, tokens `start` to `stop` of some checkpoints; zero under the mask.

        Only the part of each row that these tokens span is read.

        Raises:
            WeightsError: The layout is of another spec.
        """
        if layout.spec is not self.spec and layout.spec != self.spec:
            raise WeightsError("the token layout was made for another spec than these checkpoints'")
        mask, index = layout.mask[start:stop], layout.index[start:stop]
        low, high = int(index[mask].min()), int(index[mask].max()) + 1
        window = self._columns(indices, low, high)
        local = (index - low).masked_fill(~mask, 0).flatten()
        return window[:, local].unflatten(1, index.shape).masked_fill(~mask, 0)

    def _columns(
        self, indices: Indices | None, start: int, stop: int, out: Tensor | None = None
    ) -> Tensor:
        """`[N, stop - start]`, a range of each row's numbers."""
        sources, which, index = self._sources(indices)
        sources = {number: source[:, start:stop] for number, source in sources.items()}
        shape, dtype = (len(which), stop - start), self.spec.dtype
        if out is None:
            out = torch.empty(shape, dtype=dtype)
        elif tuple(out.shape) != shape or out.dtype != dtype:
            raise WeightsError(
                f"out is {out.dtype} of shape {tuple(out.shape)}, these numbers are {dtype} "
                f"of shape {shape}"
            )
        return gather(sources, which, index, out)

    def spans(self, indices: Indices, starts: np.ndarray, length: int) -> Tensor:
        """`[N, length]`, numbers of some checkpoints from a start of its own for each.

        Args:
            indices: Which, in this order.
            starts: `[N]`, first entry of the flat vector, from 0 to `numel - length`.
            length: How many entries follow each other.
        """
        numel = self.spec.numel
        sources, which, index = self._sources(indices)
        if np.shape(starts) != which.shape or not 0 < length <= numel:
            raise UsageError(f"spans() takes a start for each checkpoint and 1 to {numel} numbers")
        if len(which) and not 0 <= np.min(starts) <= np.max(starts) <= numel - length:
            raise UsageError(f"spans of {length} numbers start from 0 to {numel - length}")
        out = torch.empty((len(which), length), dtype=self.spec.dtype)
        for number, source in sources.items():
            to = np.flatnonzero(which == number)
            # Every window of the shard is a row of this overlapping view: one gather of rows.
            windows = source.flatten().unfold(0, length, 1)
            first = torch.from_numpy(index[to] * numel + starts[to])
            if len(to) == len(which):
                return windows.index_select(0, first)
            out[torch.from_numpy(to)] = windows.index_select(0, first)
        return out

    def _sources(self, indices: Indices | None) -> tuple[dict[int, Tensor], np.ndarray, np.ndarray]:
        """Shards `[n, numel]` by number; for each checkpoint wanted its shard and row."""
        spec = self.spec
        names, which, index = self._places
        if indices is not None:
            chosen = indices if isinstance(indices, slice) else self._positions(indices)
            which, index = which[chosen], index[chosen]
        sources: dict[int, Tensor] = {}
        for number in np.unique(which).tolist():
            source = self._shards[names[number]]
            if source.shape[1] != spec.numel:
                raise RunError(
                    f"{self.folder / names[number]} has rows of {source.shape[1]} numbers, the "
                    f"spec of {spec.numel}"
                )
            inside_shard = index[which == number]
            if inside_shard.min() < 0 or inside_shard.max() >= len(source):
                raise RunError(
                    f"row {inside_shard.max()} is not in {self.folder / names[number]}, though the "
                    "manifest lists it"
                )
            sources[number] = source
        return sources, which, index

    @property
    def _places(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names of shards; for each row which of them, and where in it. Made on first use."""
        if "places" not in self._caches:
            number: dict[str, int] = {}
            which = np.array([number.setdefault(row.shard, len(number)) for row in self.rows], int)
            index = np.array([row.index for row in self.rows], int)
            self._caches["places"] = list(number), which, index
        places: tuple[list[str], np.ndarray, np.ndarray] = self._caches["places"]
        return places

    def relabel(self, rows: Sequence[Row]) -> Zoo:
        """This view with other words about the same checkpoints (such as metrics measured anew).

        Raises:
            UsageError: Another number of rows, or a row that points to other numbers.
        """
        same = [(a.shard, a.index) for a in rows] == [(b.shard, b.index) for b in self.rows]
        if not same:
            raise UsageError("relabel() takes one row for each checkpoint, of the same numbers")
        view = self[:]
        view.rows = tuple(rows)
        view._caches = {}
        return view
