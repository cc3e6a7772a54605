"""What a generator is trained for: plug-ins that take generated weights and a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.specs import LoRASpec, Weights, WeightSpec, gram
from hypergen.specs.merging import pairs_by_group


class Objective(nn.Module, ABC):
    """A scalar loss of generated weights on a batch.

    Attributes:
        needs: Keys of the batch that it reads; the data module makes no others.
    """

    needs: frozenset[str] = frozenset({"inputs"})

    @abstractmethod
    def forward(self, weights: Weights, batch: Mapping[str, Any]) -> Tensor:
        """Scalar loss; `batch` is what the data module made."""


class Reconstruction(Objective):
    """Mean squared error to stored weights, in units of each entry's spread over the zoo.

    Args:
        mean: `[numel]`, mean of the zoo.
        std: `[numel]`, standard deviation of the zoo.
        floor: Smallest standard deviation, relative to the median one.

    The batch holds `weights`, `[B, numel]`.
    """

    needs = frozenset({"weights"})

    def __init__(self, mean: Tensor, std: Tensor, floor: float = 0.1) -> None:
        super().__init__()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("inverse", 1 / std.clamp(min=floor * float(std.median()) + 1e-12))
        self.mean: Tensor
        self.inverse: Tensor

    def forward(self, weights: Weights, batch: Mapping[str, Any]) -> Tensor:
        """Mean over entries of ((generated - stored) / std)²."""
        return ((weights.flat() - batch["weights"]) * self.inverse).square().mean()


class DeltaReconstruction(Objective):
    """Relative squared error of ΔW = s · B A, without forming ΔW.

    ‖ΔW - ΔW*‖² = ⟨ΔW, ΔW⟩ - 2⟨ΔW, ΔW*⟩ + ⟨ΔW*, ΔW*⟩, each by the low-rank Gram identity in
    O((in + out) r²). Unlike errors on A and B it does not depend on the gauge (B G, G⁻¹ A).

    Args:
        spec: A `LoRASpec`.
        epsilon: Added to the mean squared norm of the stored updates that errors are divided by.

    The batch holds `weights`, `[B, numel]`.
    """

    needs = frozenset({"weights"})

    def __init__(self, spec: WeightSpec, epsilon: float = 1e-8) -> None:
        super().__init__()
        if not isinstance(spec, LoRASpec):
            raise SpecError(f"DeltaReconstruction needs a LoRASpec, not {type(spec).__name__}")
        self.spec, self.epsilon = spec, epsilon
        # Modules of one shape are compared together: one call a shape, not one a module.
        self._pairs = [
            (of, [list(column) for column in zip(*rows, strict=True)][:2])
            for of, rows in pairs_by_group(spec).items()
        ]

    def forward(self, weights: Weights, batch: Mapping[str, Any]) -> Tensor:
        """Mean over modules of Σ_b ‖ΔW_b - ΔW*_b‖² / Σ_b ‖ΔW*_b‖²."""
        stored = self.spec.from_flat(batch["weights"])
        losses = []
        for (of_a, of_b), (at_a, at_b) in self._pairs:
            a, b = weights.groups[of_a][:, at_a], weights.groups[of_b][:, at_b]
            a0, b0 = stored.groups[of_a][:, at_a], stored.groups[of_b][:, at_b]
            own, cross, norm = gram(a, b, a, b), gram(a, b, a0, b0), gram(a0, b0, a0, b0)
            losses.append((own - 2 * cross + norm).mean(0) / (norm.mean(0) + self.epsilon))
        return torch.cat(losses).mean()


class TaskLoss(Objective):
    """The loss of the task itself, through the frozen target.

    Args:
        target: Called with (weights, `batch["inputs"]`); any differentiable callable.
        loss: Called with (output, batch); scalar.
    """

    def __init__(
        self,
        target: Callable[[Weights, Any], Any],
        loss: Callable[[Any, Mapping[str, Any]], Tensor],
    ) -> None:
        super().__init__()
        # Not registered: the frozen target is no part of what is trained, saved or averaged.
        self._target = [target]
        self.loss = loss

    def forward(self, weights: Weights, batch: Mapping[str, Any]) -> Tensor:
        """The task's loss, averaged over the batch."""
        return self.loss(self._target[0](weights, batch["inputs"]), batch)


class Distillation(Objective):
    """Matches the distributions of a teacher that sees more (the description, demos, …).

    Hinton, Vinyals and Dean, arXiv:1503.02531; for contexts, Snell et al., arXiv:2209.15189.

    Args:
        target: Called with (weights, `batch["inputs"]`), returns logits `[..., classes]`.
        temperature: Softening of both distributions.

    The batch holds `teacher_logits` of the shape of the logits, and optionally `label_mask`, True
    where they count.
    """

    needs = frozenset({"inputs", "teacher_logits"})

    def __init__(self, target: Callable[[Weights, Any], Any], temperature: float = 1.0) -> None:
        super().__init__()
        self._target, self.temperature = [target], temperature

    def forward(self, weights: Weights, batch: Mapping[str, Any]) -> Tensor:
        """Mean KL(teacher ‖ student) · T²."""
        output = self._target[0](weights, batch["inputs"])
        logits = getattr(output, "logits", output) / self.temperature
        teacher = batch["teacher_logits"] / self.temperature
        divergence = nn.functional.kl_div(
            logits.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none"
        ).sum(-1)
        mask = batch.get("label_mask")
        mean = divergence.mean() if mask is None else divergence[mask].mean()
        return mean * self.temperature**2


class Consistency(Objective):
    """Equal weights for different descriptions of one task, in units of the batch's spread.

    Σ ‖w - mean of its task‖² / Σ ‖w - mean of the batch‖², averaged over the groups of slots of a
    shape: 0 when all descriptions of a task say the same, 1 when what task it is does not matter.
    The denominator gets no gradient: weights are not pushed apart. Ours; for Text-to-LoRA
    (arXiv:2506.06105), which has many descriptions of every task. Use it beside another objective,
    since weights that do not depend on anything are consistent too.

    Args:
        epsilon: Added to the denominator.

    The batch holds `tasks`, `[B]`, with several networks of a task
    (`LanguageDataModule(wordings_per_task=2)`); tasks with one network add nothing.
    """

    needs = frozenset({"inputs", "tasks"})

    def __init__(self, epsilon: float = 1e-12) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, weights: Weights, batch: Mapping[str, Any]) -> Tensor:
        """Mean over groups of (variance within tasks / variance)."""
        tasks = batch["tasks"].to(weights.device)
        same = (tasks[:, None] == tasks[None]).float()
        mean = same / same.sum(1, keepdim=True)
        ratios = []
        for group in weights.groups:
            flat = group.flatten(1)
            within = (flat - mean.to(flat) @ flat).square().sum()
            # A task with one network is its own mean and must not count in the denominator either.
            paired = flat[same.sum(1) > 1].detach()
            spread = (paired - paired.mean(0)).square().sum() if len(paired) else flat.new_zeros(())
            ratios.append(within / (spread + self.epsilon))
        return torch.stack(ratios).mean()


class Mixture(Objective):
    """A weighted sum of objectives.

    Args:
        objectives: The parts.
        weights: Their factors, 1 when not given.
    """

    def __init__(
        self, objectives: Sequence[Objective], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.objectives = nn.ModuleList(objectives)
        self.weights = [1.0] * len(objectives) if weights is None else list(weights)
        if not objectives or len(self.weights) != len(objectives):
            raise SpecError(f"{len(objectives)} objectives need as many weights")
        self.needs = frozenset().union(*(o.needs for o in objectives))

    def forward(self, weights: Weights, batch: Mapping[str, Any]) -> Tensor:
        """Σ weight · objective."""
        terms = [w * o(weights, batch) for w, o in zip(self.weights, self.objectives, strict=True)]
        return torch.stack(terms).sum()
