"""A few adapters that all tasks share, mixed by what the description says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.base import Generator
from hypergen.generators.multitask import stored_start
from hypergen.specs import Weights, WeightSpec

_ITERATIONS = 100  # most rounds of k-means; it settles after a few


class LatentSkills(Generator):
    """weights = Σ_k π_k(condition) · W_k, with K skills W_k and their shares π trained together.

    Ponti et al., "Combining Modular Skills in Multitask Learning" (Poly), 2022, arXiv:2202.13914,
    mixes K adapters by a table of tasks; here the shares follow from the description, so that new
    tasks have some too: π = softmax(cos(c, m_k) / τ) for trained centres m_k, which start as the
    centres of clusters of the training descriptions (as the libraries of Ostapenko et al., "Towards
    Modular LLMs by Building and Reusing a Library of LoRAs", 2024, arXiv:2405.11157, are made of
    clusters of tasks).

    What comes out lies between the skills, whatever is said: a description unlike those of
    training gets a mean of adapters that work, not a point outside of all of them. All K start
    alike (from a multi-task adapter if `file` names one), so that at first every description gets
    that.

    Args:
        spec: What to emit; entries are mixed one by one.
        encoder: Turns raw inputs into a condition; its pooled vector is used.
        skills: K.
        temperature: τ at the start; small values pick one skill, large ones mix all. It is trained.
        dropout: Dropout on the pooled vector.
        file: What each skill starts from, see `stored_start`.

    Raises:
        SpecError: An option is out of range.
        WeightsError: The stored weights do not fit.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        skills: int = 6,
        temperature: float = 0.1,
        dropout: float = 0.0,
        file: str | None = None,
    ) -> None:
        config = {
            "skills": skills,
            "temperature": temperature,
            "dropout": dropout,
            "file": None,  # what was loaded is saved with the generator
        }
        super().__init__(spec, encoder, config)
        if skills < 1 or temperature <= 0:
            raise SpecError(
                f"skills={skills} must be at least 1, and temperature={temperature} above 0"
            )
        self.skills = nn.Parameter(stored_start(spec, file).repeat(skills, 1))
        self.centres = nn.Parameter(F.normalize(torch.randn(skills, encoder.dim), dim=-1))
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())
        self.dropout = nn.Dropout(dropout)
        # What descriptions have in common would make all cosines alike.
        self.register_buffer("mean", torch.zeros(encoder.dim))
        self.register_buffer("clustered", torch.zeros((), dtype=torch.bool))
        self.mean: Tensor
        self.clustered: Tensor

    def prepare(self, data: Any) -> None:
        """Puts the centres where the training descriptions have theirs, once."""
        if bool(self.clustered) or not hasattr(data, "bank"):
            return
        condition = data.bank(data.train_tasks, data.train_wordings).condition
        if condition is not None:
            self.cluster(condition.pooled.cpu())

    @torch.no_grad()
    def cluster(self, pooled: Tensor) -> None:
        """Starts the centres as those of spherical k-means, with the farthest points as seeds.

        Deterministic: the first seed is the point farthest from the mean direction.

        Args:
            pooled: `[P, D]`, pooled conditions of training descriptions.
        """
        self.mean.copy_(pooled.mean(0))
        points = F.normalize(pooled - pooled.mean(0), dim=-1).unique(dim=0)
        count = len(self.centres)
        if len(points) < count:
            return  # fewer descriptions than skills: the random centres stay
        chosen = [int((points @ points.mean(0)).argmin())]
        for _ in range(count - 1):
            nearest = (points @ points[chosen].T).max(1).values
            chosen.append(int(nearest.argmin()))
        centres = points[chosen]
        for _ in range(_ITERATIONS):
            owner = (points @ centres.T).argmax(1)
            sums = torch.zeros_like(centres).index_add_(0, owner, points)
            moved = F.normalize(torch.where(sums.norm(dim=1, keepdim=True) > 0, sums, centres))
            if torch.equal(moved, centres):
                break
            centres = moved
        self.centres.copy_(centres)
        self.clustered.fill_(True)

    def shares(self, condition: Condition) -> Tensor:
        """How much of each skill each condition gets, `[B, K]`; rows sum to 1."""
        pooled = self.dropout(F.normalize(condition.pooled - self.mean, dim=-1))
        cosine = pooled @ F.normalize(self.centres, dim=-1).T
        return (cosine / self.log_temperature.exp()).softmax(-1)

    def forward(self, condition: Condition) -> Weights:
        """Generates one set of weights for each row of the condition."""
        # Shares sum to 1, so that this is Σ_k π_k W_k; where all skills are alike, to the bit.
        first = self.skills[0]
        return self.spec.from_flat(first + self.shares(condition) @ (self.skills - first))

    def shared_weights(self, batch: int = 1) -> Weights:
        """The mean of the skills, `batch` times: what no description gets."""
        return self.spec.from_flat(self.skills.mean(0).expand(batch, -1))
