"""Expected gain: what an adapter is expected to win, judged from its condition alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import ConditionError
from hypergen.conditions import Condition

# Of differences of signals, which lie between 0 and 1 about.
_PRECISIONS = (0.0, 1.0, 4.0, 16.0, 64.0)


class GainHead(nn.Module):
    """Predicts score(generated) - score(base) from a condition.

    Gaussian-process regression (Rasmussen and Williams, "Gaussian Processes for Machine
    Learning", 2006, chapter 2) over conditions whose gain was measured, with the kernel
    exp(sharpness · (cosine - 1)): conditions that lie near ones of known gain get that gain, and
    conditions far from all of them fall back to a prior, so that a sentence unlike anything seen
    is not trusted. Sharpness and the weight of the prior (the ratio of noise to signal) are
    fitted on held-out tasks (`hypergen.evaluation.fit_gain`), never on the tasks that trained the
    generator. The sharpness is at least 5: whatever the fit prefers, a condition at right angles
    to a known one takes less than 1% of what a copy of it would take.

    Where an encoder states signals (whether demonstrations contradict each other, say, which their
    mean does not show), the kernel is multiplied by exp(-precision · ‖difference of signals‖²):
    only conditions of like signals speak for one another. The precision is fitted too, and may be
    0, which leaves the signals unread.

    Args:
        dim: Width of the pooled condition.
        size: Number of measured conditions that are kept.
        signals: Number of signals of a condition.
    """

    def __init__(self, dim: int, size: int, signals: int = 0) -> None:
        super().__init__()
        if dim < 1 or size < 1 or signals < 0:
            raise ConditionError("a GainHead needs positive dim and size")
        self.dim, self.size, self.signals = dim, size, signals
        self.register_buffer("bank", torch.zeros(size, dim + signals))
        self.register_buffer("gains", torch.zeros(size))
        self.register_buffer("prior", torch.zeros(()))
        self.register_buffer("log_sharpness", torch.tensor(2.0))
        self.register_buffer("log_prior_weight", torch.tensor(0.0))
        if signals:
            self.register_buffer("precision", torch.tensor(0.0))
            self.precision: Tensor
        self.bank: Tensor
        self.gains: Tensor
        self.prior: Tensor
        self.log_sharpness: Tensor
        self.log_prior_weight: Tensor

    def config(self) -> dict[str, Any]:
        """Constructor arguments."""
        further = {"signals": self.signals} if self.signals else {}
        return {"dim": self.dim, "size": self.size, **further}

    def forward(self, condition: Condition) -> Tensor:
        """Expected gain of each row, `[B]`, in the units of the score."""
        return self.predict(points(condition, self.signals), self.bank, self.gains)

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """Similarity of `[B, D]` and `[M, D]`, `[B, M]` in float64, 1 for equal directions.

        Behind the pooled vector stand the signals, D is the width of both.
        """
        a, b = a.double(), b.double()
        one, other = (F.normalize(x[:, : self.dim], dim=-1) for x in (a, b))
        exponent = self.log_sharpness.double().exp() * (one @ other.T - 1)
        if self.signals:
            # Differences themselves: those of equal signals are exactly zero.
            apart = (a[:, None, self.dim :] - b[None, :, self.dim :]).square().sum(-1)
            exponent = exponent - self.precision.double() * apart
        return torch.exp(exponent)

    def predict(
        self, pooled: Tensor, bank: Tensor, gains: Tensor, exclude: Tensor | None = None
    ) -> Tensor:
        """Posterior mean.

        Args:
            pooled: `[B, D]`.
            bank: `[M, D]`.
            gains: `[M]`.
            exclude: `[B, M]` bool, entries that must not speak for a row (its own task).

        Returns:
            `[B]`.
        """
        prior = self.prior.double()
        system = self._system(bank)
        kernel, known = self.kernel(pooled, bank), gains.double() - prior
        if exclude is None:
            weights = torch.linalg.solve(system, known)
            mean = (kernel * weights).sum(-1)
        else:  # one system a row: excluded entries are cut loose from the others and hold nothing
            loose = exclude[:, :, None] | exclude[:, None, :]
            eye = torch.eye(len(bank), dtype=torch.bool, device=bank.device)
            systems = torch.where(loose, eye.to(system.dtype), system)
            weights = torch.linalg.solve(systems, known.masked_fill(exclude, 0))
            mean = (kernel * weights).sum(-1)
        return (prior + mean).to(pooled.dtype)

    def _system(self, bank: Tensor) -> Tensor:
        noise = torch.exp(self.log_prior_weight.double())
        eye = torch.eye(len(bank), dtype=torch.float64, device=bank.device)
        return self.kernel(bank, bank) + noise * eye

    def fit(self, pooled: Tensor, gains: Tensor, task: Tensor, prior: float = 0.0) -> float:
        """Chooses sharpness and prior weight by leave-one-task-out error, and keeps the bank.

        Args:
            pooled: `[M, D]`, conditions of held-out tasks, see `points`.
            gains: `[M]`, their measured gains.
            task: `[M]`, task number of each; a task never predicts itself.
            prior: Gain expected of a condition unlike any other (0: the base).

        Returns:
            Root mean squared error, leaving each task out.

        Raises:
            ConditionError: Another number of conditions, or width, than this head keeps.
        """
        if pooled.shape != self.bank.shape:
            raise ConditionError(
                f"this GainHead keeps {list(self.bank.shape)}, not {list(pooled.shape)}"
            )
        members, real = _members(task)
        best = (float("inf"), 0.0, 0.0, 0.0)
        self.prior.fill_(prior)
        for precision in _PRECISIONS if self.signals else (0.0,):
            for sharpness in torch.linspace(1.6, 4.6, 7).tolist():
                for weight in torch.linspace(-5.0, 2.0, 8).tolist():
                    self._set(sharpness, weight, precision)
                    left_out = _left_out(
                        self._system(pooled), gains.double() - prior, members, real
                    )
                    error = float(left_out.square().mean())
                    best = min(best, (error, sharpness, weight, precision))
        self._set(*best[1:])
        self.bank.copy_(pooled)
        self.gains.copy_(gains)
        return best[0] ** 0.5

    def _set(self, sharpness: float, weight: float, precision: float) -> None:
        self.log_sharpness.fill_(sharpness)
        self.log_prior_weight.fill_(weight)
        if self.signals:
            self.precision.fill_(precision)


def points(condition: Condition, signals: int) -> Tensor:
    """What a head with that many signals reads: pooled vectors, then signals, `[B, D]`.

    Raises:
        ConditionError: The condition has another number of signals.
    """
    if not signals:
        return condition.pooled
    found = 0 if condition.signals is None else condition.signals.shape[1]
    if condition.signals is None or found != signals:
        raise ConditionError(
            f"the expected gain reads {signals} signals; the condition has {found}"
        )
    return torch.cat([condition.pooled, condition.signals.to(condition.pooled)], 1)


def _members(task: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the conditions of each task, `[T, most]`, and which of them are real."""
    _, group, counts = task.unique(return_inverse=True, return_counts=True)
    order = group.argsort(stable=True)
    place = torch.arange(int(counts.max()), device=task.device)
    real = place < counts[:, None]
    first = counts.cumsum(0) - counts
    return order[(first[:, None] + place).clamp(max=len(task) - 1)], real


def _left_out(system: Tensor, known: Tensor, members: Tensor, real: Tensor) -> Tensor:
    """Errors of predicting each task from all others, `[M]`, from one inverse.

    With P the inverse of the system and α = P y, the errors of the left-out block b are
    (P_bb)⁻¹ α_b (Rasmussen and Williams, equation 5.12, for blocks).
    """
    inverse = torch.linalg.inv(system)
    alpha = inverse @ known
    block = inverse[members[:, :, None], members[:, None, :]]
    eye = torch.eye(members.shape[1], dtype=block.dtype, device=block.device)
    block = torch.where(real[:, :, None] & real[:, None, :], block, eye)
    errors = torch.linalg.solve(block, alpha[members] * real)
    return errors[real]
