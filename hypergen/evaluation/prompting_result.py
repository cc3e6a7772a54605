"""What an evaluation of metric prompts found: numbers, table, picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.figures import new_figure, png, tidy
from hypergen._utils.io import write_json
from hypergen.evaluation.bootstrap import Bootstrap, Scores
from hypergen.evaluation.table import aligned

LABELS = {
    "generated": "generated",
    "copy": "training checkpoint with the nearest value",
    "own": "the run's own checkpoint with the nearest value",
    "current": "current weights",
    "mean": "mean network",
}
_COLORS = {
    "generated": "#D55E00",
    "copy": "#0072B2",
    "own": "#000000",
    "current": "#7F7F7F",
    "mean": "#CC79A7",
}


@dataclass(frozen=True, eq=False)
class Update:
    """One generated update against steps of an optimiser.

    Attributes:
        steps: Numbers of steps.
        trained: `[R, steps]`, the metric after them, by the best of several learning rates.
        generated: `[R]`, the metric after one generated update, prompted for the best value.
    """

    steps: list[int]
    trained: Tensor
    generated: Tensor

    def matched(self, good: str) -> Tensor:
        """`[R]`, fewest steps tried that are at least as good; NaN where none of them is."""
        better = self.trained <= self.generated[:, None]
        if good == "high":
            better = self.trained >= self.generated[:, None]
        steps = torch.tensor(self.steps, dtype=torch.float64)
        first = better.double().argmax(1)
        return torch.where(better.any(1), steps[first], torch.nan)


@dataclass(frozen=True, eq=False)
class Prompting:
    """Wanted and observed metric values of held-out runs.

    Attributes:
        metric: What was prompted for.
        log: Whether R² is of logarithms.
        good: Whether `"low"` or `"high"` values are good.
        runs: Names of the R runs.
        wanted: `[P]` wanted values.
        current: `[R]`, the values before.
        observed: Method → `[R, P]` values.
        closeness: Of each run's network generated for the best value: distances `to_current`,
            `to_own_last` (the last checkpoint of the same run) and `to_training` (the nearest
            checkpoint of the training set), `own_way` (from the current to the run's last
            checkpoint), and the `cosine` between the update and that way; `[R]` each. Weights are
            compared as they are.
        update: One update against steps of an optimiser.
        recursive: `[R, K + 1]`, the values after 0 to K prompts for the best value.
        test: What (generated, current, own_last) → metric → `[R]` on the test split.
        resamples: Resamples of the bootstrap over runs.
        seed: Its seed.
    """

    metric: str
    log: bool
    good: str
    runs: list[str]
    wanted: Tensor
    current: Tensor
    observed: dict[str, Tensor]
    closeness: dict[str, Tensor]
    update: Update | None
    recursive: Tensor | None
    test: dict[str, dict[str, Tensor]]
    resamples: int = 2000
    seed: int = 0

    def replace(self, **changes: Any) -> Prompting:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)

    def alignment(self, method: str = "generated") -> Tensor:
        """`[R]`, prompt alignment of each run: R² of "observed = wanted" over its prompts.

        1 - Σ (observed - wanted)² / Σ (wanted - mean wanted)²; below 0 where a constant would have
        been closer.
        """
        wanted, observed = self._scale(self.wanted), self._scale(self.observed[method])
        error = (observed - wanted).square().sum(1)
        return 1 - error / (wanted - wanted.mean()).square().sum()

    def reachable(self, method: str = "generated") -> Tensor:
        """`[R]`, the same over the prompts that the run itself can tell of: up to its best value.

        No generator can be asked for what no training reached; nor is it asked to get worse.
        """
        wanted, observed = self._scale(self.wanted), self._scale(self.observed[method])
        best = self.observed["own"].amin(1) if self.good == "low" else self.observed["own"].amax(1)
        low = torch.minimum(self._scale(best), self._scale(self.current))[:, None]
        high = torch.maximum(self._scale(best), self._scale(self.current))[:, None]
        inside = (wanted >= low) & (wanted <= high)
        count = inside.sum(1)
        mean = (wanted * inside).sum(1) / count.clamp(min=1)
        total = ((wanted - mean[:, None]).square() * inside).sum(1)
        error = ((observed - wanted).square() * inside).sum(1)
        return torch.where(count > 1, 1 - error / total.clamp(min=1e-12), torch.nan)

    def _scale(self, values: Tensor) -> Tensor:
        values = values.double()
        return values.clamp(min=1e-12).log() if self.log else values

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form, with intervals over runs."""
        draws = Bootstrap(len(self.runs), self.resamples, self.seed)

        def told(values: Tensor) -> dict[str, Any]:
            scores = Scores.of(values.double())
            return {"mean": scores.mean, "ci": list(draws.interval(draws.means(scores)))}

        out: dict[str, Any] = {
            "metric": self.metric,
            "runs": self.runs,
            "wanted": self.wanted.tolist(),
            "current": self.current.tolist(),
            "alignment": {m: told(self.alignment(m)) for m in self.observed},
            "alignment_within_the_run": {m: told(self.reachable(m)) for m in self.observed},
            "alignment_per_run": self.alignment().tolist(),
            "curve": {m: self.observed[m].double().mean(0).tolist() for m in self.observed},
            "observed": self.observed["generated"].tolist(),
            "closeness": {name: told(values) for name, values in self.closeness.items()},
            "nearer_to_own_run_than_to_training": told(
                (self.closeness["to_own_last"] < self.closeness["to_training"]).double()
            ),
            "test": {
                what: {name: told(values) for name, values in metrics.items()}
                for what, metrics in self.test.items()
            },
        }
        if self.recursive is not None:
            out["recursive"] = [told(column) for column in self.recursive.unbind(1)]
        if self.update is not None:
            matched = self.update.matched(self.good)
            known = matched[torch.isfinite(matched)]
            out["update"] = {
                "generated": told(self.update.generated),
                "steps": self.update.steps,
                "trained": [told(column) for column in self.update.trained.unbind(1)],
                "reached_in_at_most_steps_median": float(known.median()) if len(known) else None,
                "reached_by_none": float(torch.isnan(matched).double().mean()),
                "worth_in_steps": _worth(self.update, self.good),
            }
        return out

    def to_table(self) -> str:
        """Rows of methods, and sentences about updates."""
        found = self.to_dict()
        rows = [["prompt alignment, R²", "all prompts", "95% CI", "within the run", "95% CI"]]
        for method, told in found["alignment"].items():
            inside = found["alignment_within_the_run"][method]
            rows.append(
                [
                    LABELS[method],
                    f"{told['mean']:.3f}",
                    _span(told["ci"]),
                    f"{inside['mean']:.3f}",
                    _span(inside["ci"]),
                ]
            )
        lines = [
            f"{len(self.runs)} held-out runs, {len(self.wanted)} wanted values of {self.metric} "
            f"from {float(self.wanted[0]):.4g} to {float(self.wanted[-1]):.4g}",
            *aligned(rows),
        ]
        close = found["closeness"]
        lines.append(
            f"distance of the update for the best value to the current weights "
            f"{close['to_current']['mean']:.3g}, to the run's last checkpoint "
            f"{close['to_own_last']['mean']:.3g} (from the current one "
            f"{close['own_way']['mean']:.3g}), to the nearest training checkpoint "
            f"{close['to_training']['mean']:.3g}; cosine with the run's own way "
            f"{close['cosine']['mean']:.2f}"
        )
        for name in found["test"]["generated"]:
            parts = [f"{what} {found['test'][what][name]['mean']:.4g}" for what in found["test"]]
            lines.append(f"test.{name}: {', '.join(parts)}")
        if "recursive" in found:
            curve = " → ".join(f"{told['mean']:.4g}" for told in found["recursive"])
            lines.append(f"prompted again and again for the best value: {curve}")
        if "update" in found:
            update = found["update"]
            worth = update["worth_in_steps"]
            most = worth["at_most"]
            lines.append(
                f"one generated update: {self.metric} {update['generated']['mean']:.4g}, worth "
                f"more than {worth['more_than']}"
                + ("" if most is None else f" and at most {most}")
                + " steps of Adam (each run's best of three learning rates; means over runs)"
            )
        return "\n".join(lines)

    def save(self, folder: str | Path) -> list[Path]:
        """Writes `prompting.json` and `prompting.png`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "prompting.json", folder / "prompting.png"]
        write_json(paths[0], self.to_dict(), nonfinite="null")
        paths[1].write_bytes(self.plot())
        return paths

    def plot(self) -> bytes:
        """Wanted against observed values; one update against steps of training."""
        panels = 1 + (self.update is not None)
        figure = new_figure(5.4 * panels, 4.4)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        draws = Bootstrap(len(self.runs), self.resamples, self.seed)
        axis, wanted = axes[0], self.wanted.tolist()
        axis.plot(wanted, wanted, color="#BDBDBD", linewidth=1, label="as wanted")
        for method, values in self.observed.items():
            columns = [Scores.of(c.double()) for c in values.unbind(1)]
            means = [c.mean for c in columns]
            main = method == "generated"
            axis.plot(
                wanted,
                means,
                color=_COLORS[method],
                linewidth=2.4 if main else 1.2,
                label=LABELS[method],
                zorder=4 if main else 2,
            )
            if main:
                spans = [draws.interval(draws.means(c)) for c in columns]
                low, high = zip(*spans, strict=True)
                axis.fill_between(wanted, low, high, color=_COLORS[method], alpha=0.2)
        axis.legend(fontsize=8, frameon=False)
        tidy(axis, "Asked for, and reached", f"wanted {self.metric}", f"observed {self.metric}")
        if self.update is not None:
            right = axes[1]
            right.plot(
                self.update.steps,
                self.update.trained.double().mean(0).tolist(),
                "o-",
                color="#0072B2",
                label="Adam, best of three rates",
            )
            mean = float(self.update.generated.mean())
            right.axhline(mean, color=_COLORS["generated"], label="one generated update")
            before = float(self.current.mean())
            right.axhline(before, color="#7F7F7F", linewidth=1, label="before")
            right.set_xscale("log")
            right.legend(fontsize=8, frameon=False)
            tidy(right, "One update against training", "steps", self.metric)
        for axis in axes:
            if self.log:
                axis.set_yscale("log")
        if self.log:
            axes[0].set_xscale("log")
        return png(figure)


def _worth(update: Update, good: str) -> dict[str, int | None]:
    """Between which numbers of steps the mean of training passes the mean of one update.

    Returns:
        `more_than`: most steps tried whose mean is worse (0 if none); `at_most`: fewest whose mean
        is at least as good (None if none).
    """
    mean, target = update.trained.double().mean(0), float(update.generated.double().mean())
    reached = (mean <= target if good == "low" else mean >= target).tolist()
    first = reached.index(True) if True in reached else len(reached)
    return {
        "more_than": update.steps[first - 1] if first else 0,
        "at_most": update.steps[first] if first < len(reached) else None,
    }


def _span(interval: list[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"
