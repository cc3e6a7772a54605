"""Generated weights as the start of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError, UsageError, WeightsError
from hypergen.conditions.graph import CoverageReport, ModuleGraph, coverage, trace
from hypergen.conditions.graph.vocabulary import number
from hypergen.generators.graph.hypernetwork import GraphHypernetwork
from hypergen.generators.graph.rules import Architecture, Rule, architecture
from hypergen.specs import FullSpec

Scale = Literal["rule", "model"]


def init_(
    model: nn.Module,
    generator: GraphHypernetwork,
    *,
    example: Any = None,
    keep: str | Sequence[str] = (),
    strict: bool = True,
    unseen: bool = False,
    scale: Scale = "rule",
    seed: int = 0,
) -> CoverageReport:
    """Gives a network generated weights, in place.

    Buffers, and parameters that are kept or cannot be generated, stay as they are.

    Args:
        model: The network; its values are replaced, whether they require gradients or not.
        generator: What generates them.
        example: What to trace the network with (see `hypergen.conditions.graph.trace`).
        keep: Globs over names of parameters that keep their values, such as `"head.*"`.
        strict: Whether to raise if a parameter can neither be generated nor is kept.
        unseen: Whether to go on if the generator was trained without some of the parameters' roles.
        scale: `rule` brings tensors to the size that the generator was trained with, sqrt(β /
            fan_in) and the like; `model` to the mean and standard deviation that each has now, in
            the network's own initialisation.
        seed: Seed of the generator's noise.

    Returns:
        Which parameters were predicted, kept or unsupported.

    Raises:
        ConditionError: The network cannot be traced, a parameter cannot be generated, a pattern
            matches nothing, or the generator was trained without what the network needs.
        WeightsError: The network is on the meta device, or a weight came out as NaN or infinity;
            others may have been replaced by then.
    """
    if scale not in get_args(Scale):
        raise UsageError(f"scale={scale!r}: choose from {', '.join(get_args(Scale))}")
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if parameter.is_meta:
            raise WeightsError(
                f"parameter {name!r} is on the meta device: build the network with memory, or "
                "write the weights to a file (hypergen init, `stream`)"
            )
    graph = trace(model, example)
    report = coverage(model, graph=graph, keep=keep, strict=strict)
    rules = covered(graph, report)
    check_roles(generator, rules, unseen)
    if scale == "model":
        rules = rescaled(rules, parameters)
    home = next(generator.parameters())

    def place(rule: Rule) -> Tensor | None:
        own = parameters[rule.slot.name].data
        fits = own.dtype == home.dtype and own.device == home.device and own.is_contiguous()
        return own if fits else None

    with torch.no_grad():
        for rule, value in generating(generator, graph, rules, seed, place):
            own = parameters[rule.slot.name].data
            if value.data_ptr() != own.data_ptr():
                own.copy_(value)
    return report


def generating(
    generator: GraphHypernetwork,
    graph: ModuleGraph,
    rules: Architecture,
    seed: int = 0,
    out: Any = lambda rule: None,
) -> Iterator[tuple[Rule, Tensor]]:
    """As `GraphHypernetwork.each`, in evaluation mode."""
    training = generator.training
    generator.eval()
    try:
        yield from generator.each(graph, rules, seed=seed, out=out)
    finally:
        generator.train(training)


def covered(graph: ModuleGraph, report: CoverageReport) -> Architecture:
    """The rules of those parameters that a report says are predicted.

    Raises:
        ConditionError: There are none.
    """
    predicted = {p.name for p in report.of("predicted")}
    rules = architecture(graph)
    kept = tuple(rule for rule in rules.rules if rule.slot.name in predicted)
    if not kept:
        raise ConditionError(f"{report.name}: no parameter is left to generate")
    if len(kept) == len(rules.rules):
        return rules
    return Architecture(FullSpec.of([rule.slot for rule in kept], rules.spec.config), kept)


def check_roles(generator: GraphHypernetwork, rules: Architecture, unseen: bool) -> None:
    """Checks that a generator was trained with the roles of an architecture's parameters.

    One that was never trained has met none, and is not asked.

    Raises:
        ConditionError: It was not, and `unseen` is not set; names roles and parameters.
    """
    lacking = unseen_roles(generator, rules)
    if lacking and not unseen:
        listed = "; ".join(f"{role} ({names[0]})" for role, names in list(lacking.items())[:5])
        first = next(iter(lacking.values()))[0]
        raise ConditionError(
            f"the generator was trained without {len(lacking)} of the roles that the network's "
            f"parameters have: {listed}. Keep their default values by keep=[{first!r}, …] "
            "(--keep), or generate them all the same by unseen=True (--unseen)"
        )


def unseen_roles(generator: GraphHypernetwork, rules: Architecture) -> dict[str, list[str]]:
    """Role → names of the parameters that have it, of roles that no training step has met."""
    roles: dict[str, list[str]] = {}
    for rule in rules.rules:
        roles.setdefault(rule.role, []).append(rule.slot.name)
    ops = torch.tensor([number(role) for role in roles])
    unseen = generator.encoder.network.features.unseen(ops).tolist()
    return {role: roles[role] for role, new in zip(roles, unseen, strict=True) if new}


def rescaled(rules: Architecture, values: Mapping[str, Tensor]) -> Architecture:
    """Rules whose tensors start with the mean and standard deviation of given ones.

    Matrices take the standard deviation, scales the mean. A matrix that is constant (zero, say)
    keeps the rule's own.

    Args:
        rules: The rules.
        values: Name → tensor.
    """
    changed = []
    for rule in rules.rules:
        value = values[rule.slot.name].detach().to(torch.float32)
        slot = rule.slot
        if rule.form == "scale":
            slot = replace(slot, mean=float(value.mean()))
        elif rule.form == "matrix" and value.numel() > 1 and float(value.std()) > 0:
            slot = replace(slot, std=float(value.std()))
        changed.append(replace(rule, slot=slot))
    return Architecture(FullSpec.of([rule.slot for rule in changed]), tuple(changed))
