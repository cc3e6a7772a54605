"""A table of learned task embeddings."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions.base import Condition, ConditionEncoder


class TaskEncoder(ConditionEncoder):
    """One learned vector for each of a closed set of tasks, looked up by number.

    The condition of classical hypernetworks (Ha et al., "HyperNetworks", ICLR 2017,
    arXiv:1609.09106; von Oswald et al., ICLR 2020, arXiv:1906.00695).

    Args:
        num_tasks: Number of tasks.
        dim: Width of an embedding.
        tokens: Number of token vectors of a task.
    """

    input_name: ClassVar[str] = "task"

    def __init__(self, num_tasks: int, dim: int = 64, tokens: int = 1) -> None:
        super().__init__()
        if num_tasks < 1 or dim < 1 or tokens < 1:
            raise ConditionError("TaskEncoder needs positive num_tasks, dim and tokens")
        self.num_tasks, self._dim, self.num_tokens = num_tasks, dim, tokens
        self.embedding = nn.Embedding(num_tasks, tokens * dim)

    @property
    def dim(self) -> int:
        """Width D of the tokens."""
        return self._dim

    def config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"num_tasks": self.num_tasks, "dim": self._dim, "tokens": self.num_tokens}

    def forward(self, inputs: Any) -> Condition:
        """Looks tasks up, `[B]` integers → tokens `[B, tokens, dim]`.

        Raises:
            ConditionError: A number is outside the table.
        """
        ids = torch.as_tensor(inputs, dtype=torch.long, device=self.embedding.weight.device)
        ids = torch.atleast_1d(ids)
        if ids.numel() == 0 or int(ids.min()) < 0 or int(ids.max()) >= self.num_tasks:
            raise ConditionError(f"task numbers go from 0 to {self.num_tasks - 1}")
        return Condition.from_tokens(self.embedding(ids).unflatten(1, (self.num_tokens, -1)))
