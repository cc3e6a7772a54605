"""What of a network can be given weights: every parameter is accounted for, by name."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from torch import nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions.graph.graph import ModuleGraph
from hypergen.conditions.graph.trace import Method, trace

Status = Literal["predicted", "kept", "unsupported"]
STATUSES: tuple[Status, ...] = get_args(Status)
DIMENSIONS = 5  # most axes of a shape rule: those of a 3-D convolution


@dataclass(frozen=True)
class Covered:
    """One parameter.

    Attributes:
        name: Its first name.
        shape: Its shape.
        dtype: Its type, such as `float32`.
        status: `predicted`: it can be given weights by its shape and role; `kept`: it keeps its
            own, as the caller asked; `unsupported`: it has to keep them, for the `reason`.
        role: The operation that first reads it and the argument that it is there; empty without.
        fan_in: How many inputs an output sums over.
        ties: Its further names.
        trainable: Whether it requires a gradient.
        reason: Why it is not predicted.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    status: Status
    role: str = ""
    fan_in: int | None = None
    ties: tuple[str, ...] = ()
    trainable: bool = True
    reason: str = ""

    @property
    def numel(self) -> int:
        """How many numbers it holds."""
        count = 1
        for n in self.shape:
            count *= n
        return count


@dataclass(frozen=True)
class CoverageReport:
    """Every parameter of a network, in the order of the network.

    Attributes:
        name: Class of the network.
        parameters: One row each; tied parameters are one.
        buffers: Names of floating-point buffers that its state dict saves (running statistics),
            which are no parameters and stay as they are.
    """

    name: str
    parameters: tuple[Covered, ...]
    buffers: tuple[str, ...] = ()

    def of(self, status: Status) -> list[Covered]:
        """The parameters of a status."""
        return [p for p in self.parameters if p.status == status]

    @property
    def complete(self) -> bool:
        """Whether every parameter is predicted or kept."""
        return not self.of("unsupported")

    def counts(self) -> dict[str, dict[str, int]]:
        """Status → how many parameters and numbers."""
        return {
            status: {
                "parameters": len(self.of(status)),
                "numbers": sum(p.numel for p in self.of(status)),
            }
            for status in STATUSES
        }

    def table(self, limit: int = 20) -> str:
        """The report as text: counts, roles, and by name whatever is not predicted.

        Args:
            limit: Most names of a status that are listed.
        """
        total = sum(p.numel for p in self.parameters)
        lines = [f"{self.name}: {len(self.parameters):,} parameters, {total:,} numbers"]
        for status in STATUSES:
            count = self.counts()[status]
            share = f"{count['numbers'] / total:.1%}" if total else "–"
            lines.append(
                f"  {status:<12}{count['parameters']:>7,} parameters "
                f"{count['numbers']:>15,} numbers {share:>7}"
            )
        roles = Counter(p.role for p in self.of("predicted"))
        if roles:
            lines.append("predicted by role:")
            width = max(map(len, roles)) + 2
            lines += [
                f"  {role:<{width}}{n:>6,}"
                for role, n in sorted(roles.items(), key=lambda item: (-item[1], item[0]))
            ]
        for status in STATUSES[1:]:
            rows = self.of(status)
            if not rows:
                continue
            lines.append(f"{status}:")
            lines += [f"  {p.name} {list(p.shape)}: {p.reason}" for p in rows[:limit]]
            if len(rows) > limit:
                lines.append(f"  and {len(rows) - limit:,} more")
        if self.buffers:
            lines.append(f"{len(self.buffers):,} buffers (running statistics) stay as they are")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: counts and one row for each parameter."""
        return {
            "name": self.name,
            "complete": self.complete,
            "counts": self.counts(),
            "parameters": [asdict(p) for p in self.parameters],
            "buffers": list(self.buffers),
        }

    def __str__(self) -> str:
        return self.table()


def coverage(
    module: nn.Module,
    example: Any = None,
    *,
    graph: ModuleGraph | None = None,
    keep: str | Sequence[str] = (),
    strict: bool = True,
    method: Method = "auto",
) -> CoverageReport:
    """Accounts for every parameter of a network.

    Args:
        module: The network.
        example: As of `trace`.
        graph: Its graph, if it is traced already.
        keep: One or several globs over the names of parameters that keep their values.
        strict: Whether to raise if a parameter is unsupported.
        method: As of `trace`.

    Raises:
        ConditionError: A pattern of `keep` matches nothing, `strict` is set and a parameter is
            neither predicted nor kept (the message names it, and says why), or the network cannot
            be traced.
    """
    graph = trace(module, example, method=method) if graph is None else graph
    patterns = [keep] if isinstance(keep, str) else list(keep)
    numbers = graph.parameters
    skipped = {s.name: s for s in graph.skipped}
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    rows = []
    matched: set[str] = set()
    for first, parameter in module.named_parameters():
        node = graph.nodes[numbers[first]] if first in numbers else None
        every = names[id(parameter)]
        hits = [p for p in patterns if any(fnmatch.fnmatchcase(n, p) for n in every)]
        matched.update(hits)
        reason = _unsupported(parameter)
        if not reason and node is None:
            known = skipped.get(first)
            reason = known.reason if known else "it is not in the graph that was given"
        status: Status = "kept" if hits else "unsupported" if reason else "predicted"
        rows.append(
            Covered(
                name=first,
                shape=tuple(parameter.shape),
                dtype=str(parameter.dtype).removeprefix("torch."),
                status=status,
                role=node.op if node else "",
                fan_in=node.fan_in if node else None,
                ties=tuple(every[1:]),
                trainable=parameter.requires_grad,
                reason=f"kept by {hits[0]!r}" if hits else reason,
            )
        )
    missing = [p for p in patterns if p not in matched]
    if missing:
        raise ConditionError(f"keep={missing[0]!r} matches no parameter of {type(module).__name__}")
    saved = module.state_dict(keep_vars=True)
    buffers = tuple(n for n, b in module.named_buffers() if n in saved and b.is_floating_point())
    report = CoverageReport(type(module).__name__, tuple(rows), buffers)
    if strict and not report.complete:
        raise ConditionError(_complaint(report))
    return report


def _unsupported(parameter: nn.Parameter) -> str:
    """Why no shape rule gives weights to a parameter; empty if one does."""
    if not parameter.is_floating_point():
        return f"it is {str(parameter.dtype).removeprefix('torch.')}, not floating point"
    if type(parameter) is not nn.Parameter:
        return f"it is a {type(parameter).__name__}, which keeps its numbers in a form of its own"
    if parameter.numel() == 0:
        return "it is empty"
    if parameter.dim() > DIMENSIONS:
        return f"it has {parameter.dim()} axes, more than {DIMENSIONS}"
    return ""


def _complaint(report: CoverageReport) -> str:
    rows = report.of("unsupported")
    listed = "; ".join(f"{p.name}: {p.reason}" for p in rows[:5])
    more = f"; and {len(rows) - 5} more" if len(rows) > 5 else ""
    return (
        f"{report.name}: {len(rows)} of {len(report.parameters)} parameters cannot be given "
        f"weights ({listed}{more}). Pass an example that uses them (example=, --input), keep their "
        f"own values by keep=[{rows[0].name!r}, …] (--keep), or list them all with strict=False "
        "(--no-strict)"
    )
