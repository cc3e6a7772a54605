"""What is found out about a zoo and about each of its architectures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hypergen.zoo.looking.verdict import Diversity
from hypergen.zoo.store import Row


@dataclass(frozen=True)
class Points:
    """Checkpoints that were compared, for the figures.

    Attributes:
        rows: What the manifest says of them.
        last: `[N]`, True for the last checkpoint of a run.
        xy: `[N, 2]`, first principal components of the last checkpoints.
        shares: `[2]`, share of their variance along each.
        paths: Run → positions of its checkpoints by step, for some runs with several.
        path_xy: `[N, 2]`, first principal components of these paths.
        path_shares: `[2]`, share of the paths' variance along each.
        within: Distance from each checkpoint to the nearest other one of its run.
        between: Distance from each run's last checkpoint to the nearest of another run.
        aligned: The same after hidden units were permuted to match.
    """

    rows: tuple[Row, ...]
    last: Tensor
    xy: Tensor
    shares: Tensor
    paths: dict[str, list[int]]
    path_xy: Tensor
    path_shares: Tensor
    within: Tensor
    between: Tensor
    aligned: Tensor


@dataclass(frozen=True)
class ArchitectureInfo:
    """One architecture of a zoo.

    Attributes:
        key: Its key in the header.
        config: What rebuilds the network.
        numel: Numbers of a checkpoint.
        slots: Tensors of a checkpoint.
        dtype: How they are stored.
        checkpoints: Good ones.
        runs: Training runs they come from.
        metrics: Distributions over the last checkpoints of the runs.
        compared: Checkpoints that norms, distances and the map are made from.
        compared_runs: Runs they come from.
        compares: What is compared: "weights", or "updates" ΔW of LoRAs.
        norm: Root mean square of the norms of the last checkpoints.
        slot_norms: For each slot its name, shape and role, and mean and sd of its norm over the
            last checkpoints.
        within: Distribution of the distance to the nearest other checkpoint of the same run.
        between: Distribution of the distance from a last checkpoint to that of the nearest run.
        aligned: The same after hidden units were permuted to match; empty when no symmetry is
            known.
        ratio: Median of `between` over that of `within`.
        same_task: Share of runs whose nearest run has the same task, and the share by chance.
        diversity: none, low, moderate or high.
        verdict: Why, in a sentence.
        points: Coordinates and distances for figures.
    """

    key: str
    config: dict[str, Any]
    numel: int
    slots: int
    dtype: str
    checkpoints: int
    runs: int
    metrics: dict[str, dict[str, float]]
    compared: int
    compared_runs: int
    compares: str
    norm: float
    slot_norms: list[dict[str, Any]]
    within: dict[str, float]
    between: dict[str, float]
    aligned: dict[str, float]
    ratio: float | None
    same_task: dict[str, float]
    diversity: Diversity
    verdict: str
    points: Points = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form, without the points."""
        own = {name: value for name, value in vars(self).items() if name != "points"}
        return {**own, "whole": self.compared == self.checkpoints}


@dataclass(frozen=True)
class ZooInfo:
    """A whole zoo; see `describe`."""

    name: str
    licence: str
    provenance: dict[str, Any]
    parts: dict[str, int | None]
    checkpoints: int
    runs: int
    tasks: dict[str, int]
    families: int
    steps: dict[str, int]
    hyperparameters: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, float]]
    quarantined: dict[str, int]
    duplicates: dict[str, Any]
    architectures: dict[str, ArchitectureInfo]
    limit: int
    seed: int

    @property
    def verdict(self) -> str:
        """How diverse the zoo is, in one sentence for each architecture."""
        found = self.architectures
        if not found:
            return "The zoo holds no good checkpoint."
        if len(found) == 1:
            said = next(iter(found.values())).verdict
            return f"{said[0].upper()}{said[1:]}."
        return " ".join(f"{key}: {info.verdict}." for key, info in found.items())

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {
            **vars(self),
            "architectures": {key: info.to_dict() for key, info in self.architectures.items()},
            "verdict": self.verdict,
        }

    def __str__(self) -> str:
        from hypergen.zoo.looking.text import to_text

        return to_text(self)
