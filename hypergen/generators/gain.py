"""Expected gain: what an adapter is expected to win, judged from its condition alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import ConditionError
from hypergen.conditions import Condition


class GainHead(nn.Module):
    """Predicts score(generated) - score(base) from a condition.

    A kernel regression over conditions whose gain was measured: conditions that lie near ones of
    known gain get that gain; conditions far from all of them fall back to a prior, so that a
    sentence unlike anything seen is not trusted. Bandwidth and prior are fitted on held-out tasks
    (`hypergen.evaluation.fit_gain`), never on the tasks that trained the generator.

    Args:
        dim: Width of the pooled condition.
        size: Number of measured conditions that are kept.
    """

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        if dim < 1 or size < 1:
            raise ConditionError("a GainHead needs positive dim and size")
        self.dim, self.size = dim, size
        self.register_buffer("bank", torch.zeros(size, dim))
        self.register_buffer("gains", torch.zeros(size))
        self.register_buffer("prior", torch.zeros(()))
        self.register_buffer("log_sharpness", torch.tensor(3.0))
        self.register_buffer("log_prior_weight", torch.tensor(0.0))
        self.bank: Tensor
        self.gains: Tensor
        self.prior: Tensor
        self.log_sharpness: Tensor
        self.log_prior_weight: Tensor

    def config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"dim": self.dim, "size": self.size}

    def forward(self, condition: Condition) -> Tensor:
        """Expected gain of each row, `[B]`, in the units of the score."""
        return self.predict(condition.pooled, self.bank, self.gains)

    def predict(
        self, pooled: Tensor, bank: Tensor, gains: Tensor, exclude: Tensor | None = None
    ) -> Tensor:
        """Kernel regression.

        Args:
            pooled: `[B, D]`.
            bank: `[M, D]`.
            gains: `[M]`.
            exclude: `[B, M]` bool, entries that must not speak for a row (its own task).

        Returns:
            `[B]`.
        """
        similarity = F.normalize(pooled, dim=-1) @ F.normalize(bank, dim=-1).T
        kernel = torch.exp(self.log_sharpness.exp() * (similarity - 1))
        if exclude is not None:
            kernel = kernel.masked_fill(exclude, 0)
        weight = torch.exp(self.log_prior_weight)
        return (kernel @ gains + weight * self.prior) / (kernel.sum(-1) + weight)

    def fit(self, pooled: Tensor, gains: Tensor, task: Tensor, prior: float = 0.0) -> float:
        """Chooses bandwidth and prior weight by leave-one-task-out error, and keeps the bank.

        Args:
            pooled: `[M, D]`, conditions of held-out tasks.
            gains: `[M]`, their measured gains.
            task: `[M]`, task number of each; a task never predicts itself.
            prior: Gain expected of a condition unlike any other (0: the base).

        Returns:
            Root mean squared error, leaving each task out.

        Raises:
            ConditionError: Another number or width of conditions than the head keeps.
        """
        if pooled.shape != self.bank.shape:
            raise ConditionError(
                f"this GainHead keeps {list(self.bank.shape)}, not {list(pooled.shape)}"
            )
        exclude = task[:, None] == task[None, :]
        best = (float("inf"), 0.0, 0.0)
        self.prior.fill_(prior)
        for sharpness in torch.linspace(0.5, 6.0, 23).tolist():
            for weight in torch.linspace(-12.0, 2.0, 15).tolist():
                self.log_sharpness.fill_(sharpness)
                self.log_prior_weight.fill_(weight)
                error = self.predict(pooled, pooled, gains, exclude) - gains
                best = min(best, (float(error.square().mean()), sharpness, weight))
        self.log_sharpness.fill_(best[1])
        self.log_prior_weight.fill_(best[2])
        self.bank.copy_(pooled)
        self.gains.copy_(gains)
        return best[0] ** 0.5
