"""One sentence on how diverse a zoo is."""

from __future__ import annotations

from typing import Literal

Diversity = Literal["none", "low", "moderate", "high"]

# Nearest other run, as a share of the norm. Independent starts end at about 100%.
LOW, HIGH = 0.1, 0.5


def percent(share: float) -> str:
    """A share in words, with two digits where it is small."""
    value = 100 * share
    digits = 0 if value >= 10 else 1 if value >= 1 else None
    return f"{value:.2g}%" if digits is None else f"{value:.{digits}f}%"


def count(number: int, noun: str, plural: str = "") -> str:
    """A number of things in words."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def judge(
    checkpoints: int,
    runs: int,
    norm: float,
    *,
    within: float | None = None,
    farthest: float | None = None,
    between: float | None = None,
    aligned: float | None = None,
) -> tuple[Diversity, str]:
    """Judges one architecture of a zoo.

    Args:
        checkpoints: How many there are.
        runs: Of how many runs they are.
        norm: Typical norm of a checkpoint.
        within: Median distance to the nearest other checkpoint of the same run.
        farthest: Largest distance between two checkpoints.
        between: Median distance from a run's last checkpoint to the nearest of another run.
        aligned: The same after hidden units were permuted to match.

    Returns:
        The class, and the sentence (without a full stop).
    """
    if checkpoints == 0:
        return "none", "there is no good checkpoint"
    if checkpoints == 1:
        return "none", "there is a single checkpoint, and nothing to compare it with"
    norm = norm or 1.0  # LoRAs that never left their start: every distance is 0 as well
    if runs == 1:
        assert within is not None
        assert farthest is not None
        return "none", (
            f"not diverse: the {checkpoints:,} checkpoints come from one run: each lies "
            f"{percent(within / norm)} of their norm from the nearest other one, the farthest two "
            f"{percent(farthest / norm)} apart, and a generator can only learn to copy this run"
        )
    assert between is not None
    apart = min(between, between if aligned is None else aligned) / norm
    found: Diversity = "low" if apart < LOW else "moderate" if apart < HIGH else "high"
    opening = {
        "low": f"hardly diverse: the {runs:,} runs end in nearly the same place",
        "moderate": f"moderately diverse: the {runs:,} runs end in neighbouring places",
        "high": f"diverse: the {runs:,} runs end in different places",
    }[found]
    said = f"{opening}: the nearest other run is {percent(between / norm)} of the norm away"
    if aligned is not None:
        said += f" ({percent(aligned / norm)} once hidden units are permuted to match)"
    if within:
        times = between / within
        said += f", {times:.2g} times as far" if times < 10 else f", {times:.0f} times as far"
        said += " as the nearest checkpoint of the same run"
    return found, said
