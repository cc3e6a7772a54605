"""What an evaluation on stories found: numbers with intervals over stories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hypergen.evaluation.bootstrap import Bootstrap, Interval, gap_closed

METHODS = {
    "none": "no story",
    "in_prompt": "story in the prompt",
    "adapter": "story as generated adapter",
    "shuffled": "another story's adapter",
}
PERPLEXITIES = {
    "continuation": "second half of the story, the first being known",
    "plain": "plain text that no story is about",
}


@dataclass(frozen=True, eq=False)
class Counted:
    """A ratio of sums over stories, such as right answers over questions.

    Attributes:
        total: `[n]`.
        count: `[n]`.
    """

    total: Tensor
    count: Tensor

    @staticmethod
    def of(pairs: Sequence[tuple[float, float]]) -> Counted:
        """From total and count of each story."""
        total, count = torch.tensor(pairs, dtype=torch.float64).unbind(1)
        return Counted(total, count)

    def mean(self, draws: Tensor | None = None) -> Tensor:
        """The ratio; with draws `[R, n]` of stories, that of each resample `[R]`."""
        if draws is None:
            return self.total.sum() / self.count.sum()
        return self.total[draws].sum(1) / self.count[draws].sum(1)


@dataclass(frozen=True)
class StoryEvaluation:
    """Accuracy and perplexity of each method.

    Attributes:
        accuracy: `"mean"` or `"sum"` (of an option's log-likelihood, per token or summed) →
            method → right answers and questions.
        perplexity: `"continuation"` or `"plain"` → method → summed losses and tokens.
        names: Of the stories.
        resamples: Resamples of the bootstrap.
        seed: Seed of it.
        settings: What it was measured with, JSON-serialisable.
        seconds: How long it took.
    """

    accuracy: dict[str, dict[str, Counted]]
    perplexity: dict[str, dict[str, Counted]]
    names: list[str]
    resamples: int = 2000
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `hypergen evaluate --stories`."""
        draws = self._bootstrap().draws
        accuracy: dict[str, Any] = {}
        for name, methods in self.accuracy.items():
            accuracy[name] = {m: self._stated(c, draws) for m, c in methods.items()}
            accuracy[name]["adapter_minus"] = {
                m: self._difference(methods["adapter"], methods[m], draws)
                for m in methods
                if m != "adapter"
            }
            accuracy[name]["share_of_prompt_gain"] = self._share(methods, draws)
        first = self.accuracy["mean"]["none"]
        return {
            "stories": len(self.names),
            "questions": int(first.count.sum()),
            "accuracy": accuracy,
            "perplexity": {
                name: {m: self._stated(c, draws, torch.exp) for m, c in methods.items()}
                for name, methods in self.perplexity.items()
            },
            "settings": self.settings,
            "seconds": self.seconds,
        }

    def per_story(self) -> dict[str, dict[str, float]]:
        """Name → share of right answers of each method (options ranked per token)."""
        methods = self.accuracy["mean"]
        return {
            name: {m: float(c.total[i] / c.count[i]) for m, c in methods.items()}
            for i, name in enumerate(self.names)
        }

    def _bootstrap(self) -> Bootstrap:
        return Bootstrap(len(self.names), self.resamples, self.seed)

    def _stated(
        self, counted: Counted, draws: Tensor, form: Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, Any]:
        value, drawn = counted.mean(), counted.mean(draws)
        if form is not None:
            value, drawn = form(value), form(drawn)
        return {"value": float(value), "ci95": self._interval(drawn)}

    def _difference(self, a: Counted, b: Counted, draws: Tensor) -> dict[str, Any]:
        drawn = a.mean(draws) - b.mean(draws)
        return {"value": float(a.mean() - b.mean()), "ci95": self._interval(drawn)}

    def _share(self, methods: dict[str, Counted], draws: Tensor) -> dict[str, Any]:
        """(adapter - none) / (in prompt - none), resampled together."""
        own, low, high = (methods[m] for m in ("adapter", "none", "in_prompt"))
        value = gap_closed(own.mean(), low.mean(), high.mean())
        drawn = gap_closed(own.mean(draws), low.mean(draws), high.mean(draws))
        return {"value": float(value), "ci95": self._interval(drawn)}

    def _interval(self, drawn: Tensor) -> list[float]:
        interval: Interval = self._bootstrap().interval(drawn)
        return list(interval)

    def to_table(self) -> str:
        """For a terminal."""
        found = self.to_dict()
        lines = [
            f"{found['stories']} stories, {found['questions']} questions; 95% intervals over "
            "stories",
            "",
            f"{'':<28}{'accuracy, % (per token)':>26}{'accuracy, % (summed)':>26}",
        ]
        for method, label in METHODS.items():
            if method in self.accuracy["mean"]:
                cells = (_percent(found["accuracy"][n][method]) for n in ("mean", "sum"))
                lines.append(f"{label:<28}" + "".join(f"{cell:>26}" for cell in cells))
        cells = (_percent(found["accuracy"][n]["share_of_prompt_gain"]) for n in ("mean", "sum"))
        lines.append(f"{'share of the prompt’s gain':<28}" + "".join(f"{c:>26}" for c in cells))
        for name, label in PERPLEXITIES.items():
            lines += ["", f"perplexity: {label}"]
            for method, own in METHODS.items():
                if method in found["perplexity"][name]:
                    cell = found["perplexity"][name][method]
                    low, high = cell["ci95"]
                    number = f"{cell['value']:.2f} ({low:.2f} to {high:.2f})"
                    lines.append(f"{own:<28}{number:>26}")
        return "\n".join([*lines, *self._notes(found)])

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers."""
        return self._notes(self.to_dict())[1:]

    def _notes(self, found: dict[str, Any]) -> list[str]:
        lines = [""]
        for method, cell in found["accuracy"]["mean"]["adapter_minus"].items():
            low, high = cell["ci95"]
            if method in ("none", "shuffled") and not low > 0:
                verb = "is below" if high < 0 else "does not clearly beat"
                lines.append(
                    f"The generated adapter {verb} {METHODS[method]} (difference "
                    f"{100 * cell['value']:+.1f} points, 95% CI {100 * low:+.1f} to "
                    f"{100 * high:+.1f})."
                )
        plain = self.perplexity["plain"]
        draws = self._bootstrap().draws
        ratio = (plain["adapter"].mean(draws) - plain["none"].mean(draws)).exp() - 1
        low, high = self._bootstrap().interval(ratio)
        if low > 0:
            lines.append(
                "The generated adapters make plain text less likely: perplexity grows by "
                f"{100 * low:.1f} to {100 * high:.1f}% (95% CI)."
            )
        return lines if len(lines) > 1 else []


def _percent(cell: dict[str, Any]) -> str:
    low, high = cell["ci95"]
    if cell["value"] != cell["value"]:
        return "undefined"
    return f"{100 * cell['value']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
