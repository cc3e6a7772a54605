"""Metrics of all networks of a stack at once."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hypergen.targets.mlp import is_mlp, run_mlp
from hypergen.zoo.ensemble.problem import Problem

_MEMORY = 1 << 22  # numbers that the activations of one chunk may take, roughly


def evaluate(
    module: nn.Module,
    weights: dict[str, Tensor],
    problem: Problem,
    tasks: Tensor,
    split: str,
    activations: int,
    limit: int | None = None,
    flatten: bool = False,
) -> dict[str, Tensor]:
    """Scores every network of a stack on its own task.

    Args:
        module: One network in training mode; it is in evaluation mode meanwhile.
        weights: Name → `[M, *shape]`.
        problem: Gives inputs, targets and scores.
        tasks: `[M]` task numbers.
        split: Which samples.
        activations: Numbers that one sample makes in one network, which sets the chunks' size.
        limit: Only the first samples, this many.
        flatten: Whether the network wants vectors `[N, d]`.

    Returns:
        Metric → `[M]` on the CPU.
    """
    module.eval()
    device = next(iter(weights.values())).device
    inputs = problem.inputs(split)[:limit]
    inputs = inputs.flatten(1) if flatten else inputs
    chunk = max(1, _MEMORY // (activations * len(tasks)))
    totals: dict[str, Tensor] = {}
    with torch.no_grad():
        for start in range(0, len(inputs), chunk):
            part = inputs[start : start + chunk].to(device)
            index = torch.arange(start, start + len(part)).expand(len(tasks), -1)
            targets = problem.targets(split, tasks, index).to(device)
            outputs = run_stack(module, weights, part, len(tasks))
            for name, value in problem.scores(outputs, targets).items():
                total = value.double().sum(1)
                totals[name] = totals[name] + total if name in totals else total
    module.train()
    means = {name: (total / len(inputs)).float().cpu() for name, total in totals.items()}
    return problem.summary(means)


def run_stack(module: nn.Module, weights: dict[str, Tensor], x: Tensor, members: int) -> Tensor:
    """Outputs `[M, N, outputs]` for inputs that all networks share.

    Args:
        module: One network, in evaluation mode.
        weights: Name → `[M, *shape]`.
        x: `[N, *shape]`.
        members: Number of networks M.
    """
    if is_mlp(module):
        return run_mlp(cast(nn.Sequential, module), weights, x.expand(members, *x.shape))

    def run(weights: dict[str, Tensor]) -> Tensor:
        out: Tensor = functional_call(module, weights, (x,))
        return out

    out: Tensor = vmap(run)(weights)
    return out


def activation_count(module: nn.Module, shape: torch.Size) -> int:
    """Numbers that the layers of a network put out for one sample, its input included.

    Args:
        module: A network; it is run on the meta device.
        shape: Shape of one sample.
    """
    counts = [shape.numel()]

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            counts.append(output.numel())

    meta = module.to("meta").eval()  # in training, batch norm refuses a single value
    leaves = [m for m in meta.modules() if not list(m.children())]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        meta(torch.empty(1, *shape, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
        meta.train()
    return sum(counts)
