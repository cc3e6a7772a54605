"""What an audit found: numbers with intervals, as JSON and as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen.evaluation.audit.frontier import Cloud, Dominated
from hypergen.evaluation.audit.geometry import Geometry
from hypergen.evaluation.audit.overlap import Overlap
from hypergen.evaluation.audit.resample import Estimate
from hypergen.evaluation.audit.verdict import Verdict
from hypergen.evaluation.table import aligned

NAMES = {
    "samples": "samples",
    "shuffled": "samples, conditions shuffled",
    "dropped": "samples, condition dropped",
    "training": "training zoo",
    "heldout": "held-out networks",
}


@dataclass(frozen=True)
class Audit:
    """A finished audit.

    Attributes:
        verdict: What the samples are, in one sentence.
        spaces: `plain` and, where there is one, `canonical` → distances.
        overlap: Of wrong predictions; None where nothing is classified.
        dominated: Axis of novelty → shares of dominated networks.
        clouds: Samples, held-out networks and baselines as points; empty without scores.
        quality: `samples`, `training`, `heldout` and controls → `[n]` scores.
        quality_name: What they are: `"accuracy"`, `"psnr"`, …; empty without scores.
        counts: Numbers of networks and runs.
        settings: What it was made with.
        seconds: How long it took.
    """

    verdict: Verdict
    spaces: dict[str, Geometry]
    overlap: Overlap | None
    dominated: dict[str, Dominated]
    clouds: list[Cloud]
    quality: dict[str, Tensor]
    quality_name: str
    counts: dict[str, int]
    settings: dict[str, Any]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {
            "verdict": self.verdict.to_dict(),
            "counts": self.counts,
            "quality": {
                "name": self.quality_name,
                **{name: summary(values) for name, values in self.quality.items()},
            },
            "spaces": {name: found.to_dict() for name, found in self.spaces.items()},
            "overlap": None if self.overlap is None else self.overlap.to_dict(),
            "dominated": {axis: found.to_dict() for axis, found in self.dominated.items()},
            "points": {
                cloud.kind: {
                    "quality": summary(cloud.quality),
                    "novelty": {a: float(v.median()) for a, v in cloud.novelty.items()},
                }
                for cloud in self.clouds
            },
            "settings": self.settings,
            "seconds": self.seconds,
        }

    def warnings(self) -> list[str]:
        """What makes the numbers say less than they seem to."""
        out = []
        plain = self.spaces["plain"]
        if plain.duplicates:
            out.append(
                f"{plain.duplicates} of {self.counts['training']} training checkpoints equal one "
                "of another run"
            )
        if plain.shared:
            out.append(
                f"{plain.shared} of {self.counts['heldout']} held-out networks equal a training "
                "network: they are no reference for new ones"
            )
        if plain.leaked:
            out.append(
                f"{plain.leaked} of {self.counts['samples']} samples equal a held-out network: "
                "their generator has seen what it is compared with"
            )
        if self.counts["training"] < self.counts["training_of"]:
            out.append(
                f"compared with {self.counts['training']:,} of {self.counts['training_of']:,} "
                "training checkpoints, whole runs drawn at random"
            )
        if self.overlap is not None and self.overlap.matched < 0.5:
            out.append(
                f"{self.overlap.matched:.0%} of the samples have held-out networks of equal "
                f"{self.quality_name}: the mistakes of the others are compared with none"
            )
        return out

    def to_table(self) -> str:
        """All numbers for a terminal, the verdict last."""
        counts = self.counts
        lines = [
            f"{counts['samples']} samples against {counts['training']:,} training checkpoints "
            f"({counts['training_runs']:,} runs) and {counts['heldout']:,} held-out ones "
            f"({counts['heldout_runs']:,} runs)"
        ]
        if self.quality:
            lines += ["", *quality_table(self.quality, self.quality_name)]
        lines += ["", *self._spaces()]
        if self.overlap is not None:
            found = self.overlap
            rows = [
                ["wrong predictions (overlap)", "", "95% CI"],
                _row("samples with nearest training network", found.samples, ".3f"),
                _row("held-out networks, likewise", found.heldout, ".3f"),
                _row("excess at equal accuracy (0)", found.excess, "+.3f"),
            ]
            lines += ["", *aligned(rows)]
        if self.clouds:
            lines += ["", *self._points()]
        lines += ["", *(f"note: {text}" for text in self.warnings())]
        return "\n".join([*lines, f"verdict: {self.verdict.sentence}."])

    def to_short(self) -> str:
        """Quality, the numbers that decide, and the verdict, in a few lines."""
        lines = quality_table(self.quality, self.quality_name) if self.quality else []
        axis = "canonical" if "canonical" in self.spaces else "plain"
        found = self.spaces[axis]
        said = [
            f"R {found.ratio.text()}, of held-out networks {found.ratio_heldout.value:.2f}",
            f"nearer to training than held-out networks are {found.data_copying.text()}",
        ]
        if axis in self.dominated:
            share = self.dominated[axis]
            said.append(
                f"dominated by baselines {share.samples.text()}, held-out {share.heldout.value:.2f}"
            )
        lines += ["", "; ".join(said), *(f"note: {text}" for text in self.warnings())]
        return "\n".join([*lines, f"verdict: {self.verdict.sentence}."])

    def _spaces(self) -> list[str]:
        header = ["weights", *["as they are", "units matched"][: len(self.spaces)]]
        lines = {
            "R, distance over training runs' (1)": lambda g: g.ratio.text(),
            "R of held-out networks": lambda g: g.ratio_heldout.text(),
            "nearer to training than to held-out (0.50)": lambda g: g.copy_test.text(),
            "  p value": lambda g: f"{g.copy_p:.2g}",
            "nearer to training than held-out are (0.50)": lambda g: g.data_copying.text(),
            "copy rate (0.05)": lambda g: g.copy_rate.text(),
            "residual to affine hull over held-out's (1)": lambda g: g.affine.text(),
            "residual to 16-mixtures over held-out's (1)": lambda g: g.convex.text(),
            "coverage over held-out's (1)": lambda g: g.coverage.text(),
            "diversity over training runs' (1)": lambda g: g.diversity.text(),
        }
        rows = [[name, *(of(g) for g in self.spaces.values())] for name, of in lines.items()]
        for name, of in (("samples", "dominated by baselines"), ("heldout", "  held-out networks")):
            if self.dominated:
                cells = [getattr(self.dominated[axis], name).text() for axis in self.spaces]
                rows.append([of, *cells])
        return aligned([header, *rows])

    def _points(self) -> list[str]:
        axes = [a for a in ("plain", "canonical", "behaviour") if a in self.clouds[0].novelty]
        words = {"plain": "novelty", "canonical": "matched", "behaviour": "1 - overlap"}
        rows = [
            [
                "accuracy and novelty",
                self.quality_name,
                "best",
                *(words[a] for a in axes),
                "dominates",
            ]
        ]
        axis = "canonical" if "canonical" in self.dominated else "plain"
        for cloud in self.clouds:
            share = self.dominated[axis].by.get(cloud.kind)
            rows.append(
                [
                    cloud.label,
                    number(float(cloud.quality.double().mean())),
                    number(float(cloud.quality.max())),
                    *(f"{float(cloud.novelty[a].median()):.2f}" for a in axes),
                    "" if share is None else f"{100 * share:.0f}%",
                ]
            )
        return aligned(rows)


def quality_table(quality: dict[str, Tensor], name: str) -> list[str]:
    """Lines: mean, median, best and worst of each kind of network."""
    rows = [[name, "mean", "median", "best", "worst", "networks"]]
    for kind, label in NAMES.items():
        if kind in quality:
            found = summary(quality[kind])
            cells = [number(found[key]) for key in ("mean", "median", "max", "min")]
            rows.append([label, *cells, str(len(quality[kind]))])
    return aligned(rows)


def number(value: float) -> str:
    """Three decimals, or fewer of large numbers."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"


def summary(values: Tensor) -> dict[str, float]:
    """Mean, median, largest and smallest."""
    values = values.double()
    return {
        "mean": float(values.mean()),
        "median": float(torch.quantile(values, 0.5)),
        "max": float(values.max()),
        "min": float(values.min()),
    }


def _row(label: str, found: Estimate, form: str) -> list[str]:
    if math.isnan(found.value):
        return [label, "-", ""]
    return [label, f"{found.value:{form}}", f"{found.low:{form}} to {found.high:{form}}"]
