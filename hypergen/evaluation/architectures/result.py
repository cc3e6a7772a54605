"""Numbers of unseen architectures: tables, JSON and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.figures import new_figure, png, tidy
from hypergen._utils.io import write_json
from hypergen.evaluation.architectures.properties import PropertyFit
from hypergen.evaluation.bootstrap import Bootstrap, Interval, Scores
from hypergen.evaluation.table import aligned, percent, span
from hypergen.zoo.architectures import Architecture
from hypergen.zoo.architectures.train import Measured, NetworkTraining

LABELS = {
    "default": "default start (chance)",
    "mean": "mean over the other networks",
    "other": "generated for another network",
    "swapped": "own, places swapped",
    "generated": "generated",
    "trained": "trained from the default start",
}
COLOURS = {
    "default": "#999999",
    "mean": "#E69F00",
    "other": "#CC79A7",
    "swapped": "#56B4E9",
    "generated": "#D55E00",
    "trained": "#009E73",
}


@dataclass(frozen=True)
class SplitScores:
    """All methods on the architectures of one split.

    Attributes:
        name: The split.
        architectures: The networks.
        accuracy: Method → `[N]`, share of right answers of each network.
        loss: Method → `[N]`, cross-entropy in nats.
        matched: Share of numbers for which another network offers generated ones, a mean.
    """

    name: str
    architectures: tuple[Architecture, ...]
    accuracy: Mapping[str, Tensor]
    loss: Mapping[str, Tensor]
    matched: float

    @staticmethod
    def of(
        name: str,
        architectures: Sequence[Architecture],
        rows: Mapping[str, Sequence[Measured]],
        shares: Sequence[float],
    ) -> SplitScores:
        """From what was measured of each network."""
        accuracy = {m: torch.tensor([r.accuracy for r in found]) for m, found in rows.items()}
        loss = {m: torch.tensor([r.loss for r in found]) for m, found in rows.items()}
        matched = sum(shares) / len(shares)
        return SplitScores(name, tuple(architectures), accuracy, loss, matched)

    def interval(self, method: str) -> Interval:
        """95% interval of the mean accuracy over architectures."""
        return interval(self.accuracy[method])

    def versus(self, method: str) -> tuple[float, Interval]:
        """How much better generated weights are, with the interval of the paired difference."""
        difference = self.accuracy["generated"] - self.accuracy[method]
        return float(difference.mean()), interval(difference)

    def table(self) -> list[str]:
        """Lines: a title, and a row for each method."""
        rows = [["method", "accuracy", "95% CI", "generated minus it", "95% CI", "loss"]]
        for method in self.accuracy:
            cells = [LABELS[method], percent(float(self.accuracy[method].mean()))]
            cells.append(span(self.interval(method)))
            if method == "generated":
                cells += ["", ""]
            else:
                value, ends = self.versus(method)
                cells += [f"{100 * value:+.1f}", span(ends, "+.1f")]
            # The median: a default start without normalisation may have any loss.
            rows.append([*cells, f"{float(self.loss[method].median()):.3f}"])
        best = float(self.accuracy["generated"].max())
        groups = self.by_group()
        said = "; ".join(f"{g} {percent(v)} ({n})" for g, (v, n) in groups.items())
        return [
            f"{self.name}: {len(self.architectures)} unseen architectures, generated at best "
            f"{percent(best)}",
            *aligned(rows),
            f"generated: {said}; another network offers {percent(self.matched)}% of the numbers",
        ]

    def by_group(self) -> dict[str, tuple[float, int]]:
        """Kind of network → mean accuracy of the generated weights, and how many there are."""
        found: dict[str, list[float]] = {}
        for one, value in zip(self.architectures, self.accuracy["generated"].tolist(), strict=True):
            found.setdefault(one.family, []).append(value)
        return {g: (sum(v) / len(v), len(v)) for g, v in sorted(found.items())}

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "methods": {
                m: {
                    "accuracy": float(a.mean()),
                    "ci": list(self.interval(m)),
                    "loss": float(self.loss[m].mean()),
                    "median_loss": float(self.loss[m].median()),
                    **(
                        {}
                        if m == "generated"
                        else dict(zip(("generated_minus", "ci_minus"), self.versus(m), strict=True))
                    ),
                }
                for m, a in self.accuracy.items()
            },
            "families": {
                g: {"accuracy": v, "architectures": n} for g, (v, n) in self.by_group().items()
            },
            "matched": self.matched,
            "architectures": [
                {
                    "architecture": one.to_dict(),
                    "accuracy": {m: float(a[i]) for m, a in self.accuracy.items()},
                    "loss": {m: float(v[i]) for m, v in self.loss.items()},
                }
                for i, one in enumerate(self.architectures)
            ],
        }


@dataclass(frozen=True)
class ArchitectureEvaluation:
    """All splits.

    Attributes:
        splits: Name → scores.
        seed: Seed of the evaluation.
        training: How the networks of `trained` were trained.
        prediction: How well embeddings predict the accuracy of `trained`.
    """

    splits: dict[str, SplitScores]
    seed: int = 0
    training: NetworkTraining | None = None
    prediction: PropertyFit | None = None

    def to_table(self) -> str:
        """For a terminal."""
        lines: list[str] = []
        for split in self.splits.values():
            lines += [*([""] if lines else []), *split.table()]
        if self.prediction is not None:
            p = self.prediction
            lines += [
                "",
                f"accuracy after training predicted from embeddings: R² {p.r2:.2f} "
                f"({p.interval[0]:.2f} to {p.interval[1]:.2f}, {p.count} architectures)",
            ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `hypergen evaluate`."""
        return {
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
            "seed": self.seed,
            "training": None if self.training is None else asdict(self.training),
            "prediction": None if self.prediction is None else asdict(self.prediction),
        }

    def plot(self) -> bytes:
        """Mean accuracy of each method in each split with its interval; dots are networks."""
        figure = new_figure(1.6 + 1.5 * len(self.splits), 4.2)
        axis = figure.subplots()
        for x, split in enumerate(self.splits.values()):
            for k, (method, values) in enumerate(split.accuracy.items()):
                at = x + 0.13 * (k - (len(split.accuracy) - 1) / 2)
                low, high = split.interval(method)
                colour = COLOURS[method]
                axis.plot([at, at], [low, high], color=colour, linewidth=2)
                axis.plot(
                    at,
                    float(values.mean()),
                    "o",
                    color=colour,
                    markersize=7 if method == "generated" else 5,
                    label=LABELS[method] if x == 0 else None,
                )
                axis.plot([at] * len(values), values, ".", color=colour, alpha=0.25, markersize=3)
        names = [f"{n}\n({len(s.architectures)})" for n, s in self.splits.items()]
        axis.set_xticks(range(len(names)), names)
        tidy(axis, "Unseen architectures", "", "accuracy")
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        return png(figure)

    def save(self, folder: str | Path) -> list[Path]:
        """Writes `architectures.json` and `architectures.png`."""
        return save_report(folder, "architectures", self.to_dict(), self.plot())


def save_report(folder: str | Path, name: str, data: dict[str, Any], plot: bytes) -> list[Path]:
    """Writes numbers and picture of an evaluation; other files of the folder stay."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{name}.png"
    picture.write_bytes(plot)
    return [write_json(folder / f"{name}.json", data, nonfinite="null"), picture]


def interval(values: Tensor, seed: int = 0) -> Interval:
    """95% interval of a mean over architectures."""
    bootstrap = Bootstrap(len(values), seed=seed)
    return bootstrap.interval(bootstrap.means(Scores.of(values)))
