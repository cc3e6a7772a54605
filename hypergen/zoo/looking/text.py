"""A zoo in a page of plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hypergen.zoo.looking.records import ArchitectureInfo, ZooInfo
from hypergen.zoo.looking.verdict import count, percent

_SHOWN = 12  # lines of a list


def to_text(info: ZooInfo) -> str:
    """Everything that `hypergen zoo info` prints."""
    lines = [*_head(info), *_counts(info)]
    if info.metrics:
        lines += ["", "metrics of the last checkpoint of each run"]
        lines += _indent(_table(info.metrics))
    for found in info.architectures.values():
        lines += ["", *_architecture(found, info)]
    return "\n".join([*lines, "", info.verdict])


def parts(info: ZooInfo) -> str:
    """Whether the zoo is complete."""
    there, announced = info.parts["there"], info.parts["announced"]
    if announced is None:
        return f"open, {count(there or 0, 'part')} so far"
    if there == announced:
        return f"complete, {count(announced, 'part')}"
    return f"incomplete: {there:,} of {count(announced, 'part')}"


def tasks(info: ZooInfo) -> str:
    """Number of tasks and families, and how evenly checkpoints cover them."""
    if not info.tasks:
        return "none"
    used = [number for number in info.tasks.values() if number]
    said = f"{len(info.tasks):,}"
    if len(used) < len(info.tasks):
        said += f", {len(used):,} of them with checkpoints"
    if used:
        least, most = min(used), max(used)
        each = count(most, "checkpoint") if least == most else f"{least:,} to {most:,} checkpoints"
        said += f" ({each} each), {count(info.families, 'family', 'families')}"
    return said


def sampled(found: ArchitectureInfo, info: ZooInfo) -> str:
    """What norms, distances and the map were made from."""
    if found.compared == found.checkpoints:
        return f"all {count(found.checkpoints, 'checkpoint')}"
    return (
        f"a sample of {found.compared:,} of {found.checkpoints:,} checkpoints from "
        f"{found.compared_runs:,} of {found.runs:,} runs (seed {info.seed})"
    )


def distances(found: ArchitectureInfo) -> dict[str, dict[str, float]]:
    """Line → distribution, of those that exist."""
    named = {
        "nearest of the same run": found.within,
        "nearest other run": found.between,
        "nearest other run, aligned": found.aligned,
    }
    return {name: values for name, values in named.items() if values}


def hyperparameter(values: Mapping[str, Any]) -> str:
    """Range or values of a hyperparameter."""
    if "min" in values:
        low, high = values["min"], values["max"]
        said = f"{low:g}" if low == high else f"{low:g} to {high:g} ({values['distinct']:,} values)"
    else:
        shown = [f"{text} ({number:,})" for text, number in values["values"].items()]
        more = values["distinct"] - len(shown)
        said = ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
    return said + (f"; missing in {values['missing']:,}" if values["missing"] else "")


def _head(info: ZooInfo) -> Iterator[str]:
    yield f"{info.name}"
    yield f"  licence          {info.licence or 'not stated'}"
    yield f"  parts            {parts(info)}"


def _counts(info: ZooInfo) -> Iterator[str]:
    yield f"  checkpoints      {info.checkpoints:,} of {count(info.runs, 'run')}"
    if info.steps:
        s = info.steps
        yield (
            f"  steps            {s['min']:,} to {s['max']:,} ({s['distinct']:,} different; up to "
            f"{count(s['most_per_run'], 'checkpoint')} a run)"
        )
    yield f"  tasks            {tasks(info)}"
    for name, values in info.hyperparameters.items():
        yield f"  {name:<16} {hyperparameter(values)}"
    total = sum(info.quarantined.values())
    yield f"  quarantined      {total:,}"
    reasons = sorted(info.quarantined.items(), key=lambda item: -item[1])
    for reason, number in reasons[:_SHOWN]:
        yield f"    {number:>7,}  {reason}"
    found = info.duplicates
    words = f" ({found['of_other_runs']:,} across runs)" if found["count"] else ""
    yield f"  exact duplicates {found['count']:,}{words}"
    for example in found["examples"]:
        yield f"             {example}"


def _architecture(found: ArchitectureInfo, info: ZooInfo) -> Iterator[str]:
    name = found.config.get("class", "")
    yield f"architecture {found.key}" + (f" ({name})" if name else "")
    yield (
        f"  {found.numel:,} numbers in {count(found.slots, 'slot')}, {found.dtype}; "
        f"{count(found.checkpoints, 'checkpoint')} of {count(found.runs, 'run')}"
    )
    what = "LoRA updates ΔW" if found.compares == "updates" else "weights"
    yield f"  compared: {what} of {sampled(found, info)}; norm {found.norm:.4g}"
    yield "  norm by slot: mean ± sd over the last checkpoints"
    width = max(len(slot["slot"]) for slot in found.slot_norms[:_SHOWN])
    for slot in found.slot_norms[:_SHOWN]:
        yield f"    {slot['slot']:<{width}}  {slot['mean']:.4g} ± {slot['sd']:.2g}"
    if len(found.slot_norms) > _SHOWN:
        yield f"    … and {len(found.slot_norms) - _SHOWN:,} more (see --json or --report)"
    if distances(found):
        yield "  distances"
        yield from _indent(_table(distances(found)), 4)
    if found.ratio is not None:
        yield f"  between runs / within a run: {found.ratio:.3g}"
    if found.same_task:
        yield (
            f"  the nearest run has the same task for {percent(found.same_task['share'])} of the "
            f"runs (by chance {percent(found.same_task['chance'])})"
        )


def _table(rows: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    columns = ["count", "mean", "sd", "min", "q05", "median", "q95", "max"]
    width = max(len(name) for name in rows)
    yield " " * width + "".join(f"{column:>10}" for column in columns)
    for name, values in rows.items():
        yield f"{name:<{width}}" + "".join(f"{values[column]:>10.4g}" for column in columns)


def _indent(lines: Iterator[str], by: int = 2) -> Iterator[str]:
    return (f"{' ' * by}{line}" for line in lines)
