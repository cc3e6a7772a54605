"""What training reaches from each start: table, JSON and picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hypergen._utils.figures import new_figure, png, tidy
from hypergen.evaluation.architectures.result import interval, save_report
from hypergen.evaluation.table import aligned, percent, span
from hypergen.zoo.architectures import Architecture
from hypergen.zoo.architectures.train import NetworkTraining

_COLOURS = ("#D55E00", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class GroupInits:
    """All starts for one kind of network.

    Attributes:
        name: Such as `convnets`.
        architectures: The networks.
        accuracy: Start → `[N]`, share of right answers after training; 0 where it diverged.
        loss: Start → `[N]`, cross-entropy after training; NaN where it diverged.
        before: Start → `[N]`, share of right answers before.
        rates: Start → its learning rate.
    """

    name: str
    architectures: tuple[Architecture, ...]
    accuracy: Mapping[str, Tensor]
    loss: Mapping[str, Tensor]
    before: Mapping[str, Tensor]
    rates: Mapping[str, float]

    def table(self) -> list[str]:
        """Lines: a title, and a row for each start; the first is what others are compared with."""
        first = next(iter(self.accuracy))
        head = ["start", "before", "after", "95% CI", f"{first} minus it", "95% CI", "loss", "lr"]
        rows = [head]
        for name, values in self.accuracy.items():
            cells = [name, percent(float(self.before[name].mean()))]
            cells += [percent(float(values.mean())), span(interval(values))]
            if name == first:
                cells += ["", ""]
            else:
                difference = self.accuracy[first] - values
                ends = span(interval(difference), "+.1f")
                cells += [f"{100 * float(difference.mean()):+.1f}", ends]
            rows.append(
                [*cells, f"{float(self.loss[name].nanmean()):.3f}", f"{self.rates[name]:g}"]
            )
        return [f"{self.name}: {len(self.architectures)} unseen architectures", *aligned(rows)]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "starts": {
                name: {
                    "accuracy": float(values.mean()),
                    "ci": list(interval(values)),
                    "before": float(self.before[name].mean()),
                    "loss": float(self.loss[name].nanmean()),
                    "lr": self.rates[name],
                    "architectures": values.tolist(),
                }
                for name, values in self.accuracy.items()
            },
            "architectures": [one.to_dict() for one in self.architectures],
        }


@dataclass(frozen=True)
class InitEvaluation:
    """All kinds of networks.

    Attributes:
        groups: Kind → result.
        split: Split of the architectures.
        training: How they were trained, but for the learning rate.
        epochs: How often each training input was seen, in the mean.
        settings: Noise, learning rates to choose from, and the like.
    """

    groups: dict[str, GroupInits]
    split: str
    training: NetworkTraining
    epochs: float
    settings: dict[str, Any] = field(default_factory=dict)

    def to_table(self) -> str:
        """For a terminal."""
        t = self.training
        lines = [
            f"{t.steps} steps ({self.epochs:.2f} epochs) of {t.optimizer}, batch {t.batch_size}; "
            f"architectures of the split {self.split!r}"
        ]
        for group in self.groups.values():
            lines += ["", *group.table()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `hypergen evaluate --init-steps`."""
        return {
            "groups": {name: group.to_dict() for name, group in self.groups.items()},
            "split": self.split,
            "training": {k: v for k, v in asdict(self.training).items() if k != "lr"},
            "epochs": self.epochs,
            "settings": self.settings,
        }

    def plot(self) -> bytes:
        """Mean accuracy after training from each start, with intervals; rings are before."""
        figure = new_figure(2.2 + 1.6 * len(self.groups), 4.2)
        axis = figure.subplots()
        for x, group in enumerate(self.groups.values()):
            count = len(group.accuracy)
            for k, (name, values) in enumerate(group.accuracy.items()):
                at = x + 0.16 * (k - (count - 1) / 2)
                colour = "#666666" if name == "default" else _COLOURS[k % len(_COLOURS)]
                low, high = interval(values)
                axis.plot([at, at], [low, high], color=colour, linewidth=2)
                label = name if x == 0 else None
                axis.plot(at, float(values.mean()), "o", color=colour, markersize=6, label=label)
                before = float(group.before[name].mean())
                axis.plot(at, before, "o", color=colour, markersize=5, fillstyle="none")
        axis.set_xticks(range(len(self.groups)), list(self.groups))
        tidy(axis, f"After {self.training.steps} steps, by start", "", "accuracy")
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        return png(figure)

    def save(self, folder: str | Path) -> list[Path]:
        """Writes `inits.json` and `inits.png`."""
        return save_report(folder, "inits", self.to_dict(), self.plot())
