"""One sentence on what samples are, by rules that anyone can check against the numbers.

The rules are tried in this order, over the plain and the canonical space: what is wrong in either
of them counts.

1. **copies**: the samples are nearer to the training set than held-out networks are (data-copying
   test, its interval above 1/2) or than they are to a held-out set of equal size (copy test,
   p < 0.01), and R < 1/2 at the upper end of its interval: the typical sample lies nearer to a
   training network than the point halfway between two neighbouring ones does.
2. **inside**: noise and averaging give as much. Either at least half of the samples are dominated
   in accuracy and novelty by baselines (and more of them than of held-out networks; novelty is the
   distance with units matched where that is known: reordering units is not new), or the samples
   are convex combinations of 16 training networks: their residual is below half of held-out
   networks' at the upper end of its interval.
3. **broken**: half of the samples are worse than 95% of the held-out networks *and* no better than
   the strongest noise that was tried, or not finite. (Only where quality is measured.)
4. **near**: none of these, but something says that the samples lean on training networks, both
   significantly and by an amount that matters: R below 0.95 (and its interval below 1), the copy
   test (p < 0.01), or an overlap of wrong predictions that is more than 0.05 above that of held-out
   networks of equal accuracy (and its interval above 0).
5. **new**: nothing of all that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hypergen.evaluation.audit.frontier import Dominated
from hypergen.evaluation.audit.geometry import Geometry
from hypergen.evaluation.audit.overlap import Overlap

Kind = Literal["broken", "copies", "inside", "near", "new"]

CLOSE = 0.5  # R of copies
MIXTURE = 0.5  # residual of mixtures, over held-out networks'
SHARE = 0.5  # dominated share from which on baselines give as much
LEVEL = 0.01  # significance of the copy test, which is made in two spaces
CLOSER, MISTAKES = 0.95, 0.05  # R and excess overlap that matter
NOISY = 0.05  # R from which on copies are called noisy
ALIKE = 0.5  # diversity below which samples are said to be alike


@dataclass(frozen=True)
class Verdict:
    """What the samples are.

    Attributes:
        kind: See the module.
        sentence: The same in words, with the numbers that decided.
        flags: Every warning sign → whether it is there, whatever decided.
    """

    kind: Kind
    sentence: str
    flags: dict[str, bool]

    def to_dict(self) -> dict[str, object]:
        """JSON-serialisable form."""
        return {"kind": self.kind, "sentence": self.sentence, "flags": self.flags}


@dataclass(frozen=True)
class Quality:
    """How good the samples are, beside what real networks and noise reach.

    Attributes:
        median: Of the samples.
        low: 5% quantile of held-out networks.
        floor: Median of the strongest noise that was tried.
        name: `"accuracy"`, `"psnr"`, ….
    """

    median: float
    low: float
    floor: float
    name: str


def flags_of(
    spaces: Mapping[str, Geometry],
    dominated: Mapping[str, Dominated],
    overlap: Overlap | None,
    quality: Quality | None,
) -> dict[str, bool]:
    """Every warning sign, by name; `in either space` is meant where there are two."""
    found = list(spaces.values())
    share = decisive(dominated)
    return {
        "closer_than_training_runs": any(g.ratio.high < 1 for g in found),
        "copy_test": any(g.copy_p < LEVEL and g.copy_test.value > 0.5 for g in found),
        "data_copying": any(g.data_copying.low > 0.5 for g in found),
        "copies": any(
            g.ratio.high < CLOSE
            and (g.data_copying.low > 0.5 or (g.copy_p < LEVEL and g.copy_test.value > 0.5))
            for g in found
        ),
        "copy_rate": any(g.copy_rate.low > 0.05 for g in found),
        "affine_hull": any(g.affine.high < 1 for g in found),
        "convex_mixture": any(g.convex.high < MIXTURE for g in found),
        "dominated": share is not None
        and share.samples.value >= SHARE
        and share.samples.low > share.heldout.value,
        "same_mistakes": overlap is not None and overlap.excess.low > 0,
        "low_coverage": any(g.coverage.high < 1 for g in found),
        "low_diversity": any(g.diversity.high < 1 for g in found),
        "alike": any(g.diversity.high < ALIKE for g in found),
        "does_not_work": quality is not None
        and (
            math.isnan(quality.median)
            or (quality.median < quality.low and quality.median <= quality.floor)
        ),
    }


def decisive(dominated: Mapping[str, Dominated]) -> Dominated | None:
    """The dominated shares that count: with units matched, if that is known."""
    found = dominated.get("canonical") or dominated.get("plain")
    # No baseline may be for the task of any sample.
    return None if found is None or math.isnan(found.samples.value) else found


def judge(
    spaces: Mapping[str, Geometry],
    dominated: Mapping[str, Dominated],
    overlap: Overlap | None,
    quality: Quality | None,
) -> Verdict:
    """Applies the rules.

    Args:
        spaces: Name → geometry.
        dominated: Axis of novelty → dominated shares; empty where quality was not measured.
        overlap: Overlap of wrong predictions, where there are any.
        quality: None where it was not measured.
    """
    flags = flags_of(spaces, dominated, overlap, quality)
    # What is said is said in the space where samples are nearest to training networks.
    said = min(spaces.values(), key=lambda g: g.ratio.value)
    if flags["copies"]:
        return Verdict("copies", _copies(said), flags)
    if flags["dominated"] or flags["convex_mixture"]:
        return Verdict("inside", _inside(spaces, dominated, flags) + _works(quality), flags)
    if flags["does_not_work"]:
        assert quality is not None
        return Verdict("broken", _broken(quality), flags)
    reasons = _reasons(spaces, overlap, flags)
    works = _works(quality)
    alike = _alike(spaces, flags)
    if reasons:
        return Verdict(
            "near",
            f"not copies, but nearer to the training networks than real new ones: "
            f"{'; '.join(reasons)}{works}{alike}",
            flags,
        )
    return Verdict("new", f"new networks: {_new(said, dominated)}{works}{alike}", flags)


def _copies(g: Geometry) -> str:
    what = "noisy copies" if g.ratio.value > NOISY else "copies"
    return (
        f"these are {what}: the typical sample is {_percent(g.ratio.value)} as far from a training "
        "network as training runs are from each other, and nearer to them than a real held-out "
        f"network is in {_percent(g.data_copying.value)} of all pairs"
    )


def _inside(
    spaces: Mapping[str, Geometry], dominated: Mapping[str, Dominated], flags: Mapping[str, bool]
) -> str:
    parts = []
    if flags["convex_mixture"]:
        g = min(spaces.values(), key=lambda g: g.convex.value if g.convex.value >= 0 else math.inf)
        parts.append(
            f"mixtures of 16 training networks leave {_percent(g.convex.value)} of the residual "
            "that they leave of real new networks"
        )
    if flags["dominated"]:
        d = decisive(dominated)
        assert d is not None
        best = max(d.by, key=lambda kind: d.by[kind])
        parts.append(
            f"{_percent(d.samples.value)} of the samples are matched or beaten in both quality and "
            f"novelty by networks that need no generator (held-out networks: "
            f"{_percent(d.heldout.value)}; most often by {best!r})"
        )
    what = (
        "these are averages or interpolations" if flags["convex_mixture"] else "nothing is gained"
    )
    return f"{what}, inside what noise and averaging give: {'; '.join(parts)}"


def _broken(quality: Quality) -> str:
    if math.isnan(quality.median):
        return "these networks do not work: their outputs are not numbers"
    return (
        f"these networks do not work: their median {quality.name} is {quality.median:.3g}, that of "
        f"strong noise around training networks {quality.floor:.3g}, and 95% of the real new ones "
        f"reach {quality.low:.3g}"
    )


def _reasons(
    spaces: Mapping[str, Geometry], overlap: Overlap | None, flags: Mapping[str, bool]
) -> list[str]:
    reasons = []
    closer = [g for g in spaces.values() if g.ratio.high < 1 and g.ratio.value < CLOSER]
    if closer:
        g = min(closer, key=lambda g: g.ratio.value)
        reasons.append(
            f"R is {g.ratio.text()}, where training runs have 1 and held-out networks "
            f"{g.ratio_heldout.value:.2f}"
        )
    g = min(spaces.values(), key=lambda g: g.copy_p)
    if flags["copy_test"]:
        reasons.append(
            f"{_percent(g.copy_test.value)} are nearer to the training set than to a held-out set "
            f"of equal size (p = {g.copy_p:.2g})"
        )
    if overlap is not None and flags["same_mistakes"] and overlap.excess.value > MISTAKES:
        reasons.append(
            f"their mistakes overlap with a training network's by {overlap.excess.value:.3f} more "
            "than those of held-out networks of the same accuracy"
        )
    return reasons


def _new(said: Geometry, dominated: Mapping[str, Dominated]) -> str:
    out = (
        f"R is {said.ratio.text()}, that of real held-out networks "
        f"{said.ratio_heldout.value:.2f}; {_percent(said.copy_test.value)} are nearer to the "
        f"training set than to a held-out set of equal size (p = {said.copy_p:.2g})"
    )
    d = decisive(dominated)
    if d is not None:
        out += (
            f"; {_percent(1 - d.samples.value)} lie outside what noise and averaging give "
            f"(held-out networks: {_percent(1 - d.heldout.value)})"
        )
    return out


def _works(quality: Quality | None) -> str:
    if quality is None or not quality.median < quality.low:
        return ""
    return (
        f"; they are worse than real ones: their median {quality.name} is {quality.median:.3g}, "
        f"and 95% of the held-out networks reach {quality.low:.3g}"
    )


def _alike(spaces: Mapping[str, Geometry], flags: Mapping[str, bool]) -> str:
    if not flags["alike"]:
        return ""
    g = min(spaces.values(), key=lambda g: g.diversity.value)
    return f"; they are alike: {_percent(g.diversity.value)} as far apart as training runs are"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.01 or share == 0 else f"{100 * share:.2g}%"
