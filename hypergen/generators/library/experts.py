"""A library of trained experts and of what they are described by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import ConditionError, WeightsError
from hypergen.conditions import ConditionEncoder
from hypergen.specs import Weights, WeightSpec


@dataclass(frozen=True, eq=False)
class Experts:
    """Trained weights and their encoded descriptions, as a data module hands them over.

    Attributes:
        weights: `E` networks.
        pooled: `[P, D]` pooled conditions of their descriptions, several for each.
        owner: `[P]`, the network that each describes.
        tasks: `[P]`, the number of the task that each describes, -1 where there is none.
        names: A short name of each network, `E` of them.
    """

    weights: Weights
    pooled: Tensor
    owner: Tensor
    tasks: Tensor
    names: Sequence[str]

    def __post_init__(self) -> None:
        count = len(self.weights)
        if len(self.names) != count:
            raise WeightsError(f"{count} experts have {len(self.names)} names")
        if not len(self.pooled) == len(self.owner) == len(self.tasks):
            raise WeightsError("pooled, owner and tasks of experts must be equally many")
        bare = set(range(count)) - set(self.owner.tolist())
        if len(self.pooled) and bare:
            raise ConditionError(f"expert {self.names[min(bare)]!r} has no description")

    @staticmethod
    def encode(
        weights: Weights,
        descriptions: Sequence[Any],
        encoder: ConditionEncoder,
        chunk: int = 1024,
    ) -> Experts:
        """Encodes the descriptions of experts.

        Args:
            weights: `E` networks.
            descriptions: `E` of them: a raw input of the encoder each, or a list of several.
            encoder: The encoder.
            chunk: Descriptions encoded at a time.

        Raises:
            ConditionError: Another number of descriptions, or one that cannot be encoded.
        """
        if isinstance(descriptions, str) or len(descriptions) != len(weights):
            raise ConditionError(f"{len(weights)} experts need as many descriptions, one list each")
        lists = [list(d) if isinstance(d, list | tuple) else [d] for d in descriptions]
        raw = [one for several in lists for one in several]
        owner = torch.arange(len(lists)).repeat_interleave(torch.tensor([len(x) for x in lists]))
        with torch.no_grad():
            parts = [encoder(raw[i : i + chunk]).pooled for i in range(0, len(raw), chunk)]
        pooled = torch.cat(parts) if parts else torch.zeros(0, encoder.dim)
        names = [str(several[0]) if several else f"expert {i}" for i, several in enumerate(lists)]
        return Experts(weights, pooled, owner, torch.full_like(owner, -1), names)

    def merged(self) -> Experts:
        """Experts of equal numbers become one, with the descriptions of all of them."""
        flat = self.weights.flat()
        _, group = flat.unique(dim=0, return_inverse=True)
        first = torch.full((int(group.max()) + 1,), len(group), device=group.device)
        position = torch.arange(len(group), device=group.device)
        first = first.scatter_reduce(0, group, position, "amin")
        order = first.argsort()
        number = order.argsort()[group].to(self.owner.device)
        kept = first[order]
        names = [self.names[i] for i in kept.tolist()]
        return Experts(self.weights[kept], self.pooled, number[self.owner], self.tasks, names)


class ExpertDescriptions(nn.Module):
    """What a number of experts are described by, in buffers.

    Args:
        dim: Width D of pooled conditions.
        names: Names of the experts; none for a library that is filled later.
        descriptions: Number P of their descriptions.
    """

    def __init__(self, dim: int, names: Sequence[str] = (), descriptions: int = 0) -> None:
        super().__init__()
        self.names = list(names)
        self.register_buffer("pooled", torch.zeros(descriptions, dim))
        self.register_buffer("owner", torch.zeros(descriptions, dtype=torch.long))
        self.register_buffer("tasks", torch.full((descriptions,), -1, dtype=torch.long))
        self.pooled: Tensor
        self.owner: Tensor
        self.tasks: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def fill(self, experts: Experts) -> None:
        """Copies the experts in, in place of those that are there."""
        device = self.pooled.device
        if experts.pooled.shape[1:] != self.pooled.shape[1:]:
            raise ConditionError(
                f"the experts' conditions have width {experts.pooled.shape[1]}, the encoder's "
                f"{self.pooled.shape[1]}"
            )
        self.names = list(experts.names)
        self.pooled = experts.pooled.detach().clone().to(device)
        self.owner = experts.owner.clone().to(device)
        self.tasks = experts.tasks.clone().to(device)

    def resize(self, experts: int, descriptions: int) -> None:
        """Makes room for numbered experts, whose tensors are loaded next."""
        self.names = [f"expert {i}" for i in range(experts)]
        device = self.pooled.device
        self.pooled = self.pooled.new_zeros(descriptions, self.pooled.shape[1])
        self.owner = torch.zeros(descriptions, dtype=torch.long, device=device)
        self.tasks = torch.full((descriptions,), -1, dtype=torch.long, device=device)

    def similarity(self, pooled: Tensor) -> Tensor:
        """Cosine to the most similar description of each expert.

        Args:
            pooled: `[B, D]`.

        Returns:
            `[B, E]`.

        Raises:
            ConditionError: The library is empty.
        """
        if not len(self) or not len(self.pooled):
            raise ConditionError(
                "the library holds no described experts: build the generator with from_weights, "
                "or train it with a data module that has a zoo"
            )
        cosine = F.normalize(pooled, dim=-1) @ F.normalize(self.pooled, dim=-1).T
        lowest = cosine.new_full((len(pooled), len(self)), -torch.inf)
        return lowest.scatter_reduce(1, self.owner.expand_as(cosine), cosine, "amax")

    def centres(self) -> Tensor:
        """Mean pooled condition of each expert, `[E, D]`."""
        total = self.pooled.new_zeros(len(self), self.pooled.shape[1])
        total = total.index_add(0, self.owner, self.pooled)
        return total / torch.bincount(self.owner, minlength=len(self)).clamp(min=1)[:, None]

    def own(self, tasks: Tensor) -> Tensor:
        """Which experts were trained on a row's task, `[B, E]` bool.

        A generator that may look up a training task's own expert learns to do nothing else. Where
        no other expert is left, none is marked.

        Args:
            tasks: `[B]` task numbers; -1 for none.
        """
        same = (tasks[:, None] == self.tasks) & (tasks >= 0)[:, None]
        own = same.new_zeros(len(tasks), len(self), dtype=torch.long)
        marked = own.scatter_reduce(1, self.owner.expand_as(same), same.long(), "amax").bool()
        return marked & ~marked.all(1, keepdim=True)


class ExpertLibrary(ExpertDescriptions):
    """Experts with their numbers, `[E, numel]`, in a buffer.

    Args:
        spec: What the numbers mean.
        dim: Width D of pooled conditions.
        names: Names of the experts; none for a library that is filled later.
        descriptions: Number P of their descriptions.
    """

    def __init__(
        self, spec: WeightSpec, dim: int, names: Sequence[str] = (), descriptions: int = 0
    ) -> None:
        super().__init__(dim, names, descriptions)
        self.spec = spec
        self.register_buffer("weights", torch.zeros(len(self.names), spec.numel))
        self.weights: Tensor

    def fill(self, experts: Experts) -> None:
        """Copies the experts in, in place of those that are there.

        Raises:
            WeightsError: They are of another spec, or not finite.
        """
        if experts.weights.spec != self.spec:
            raise WeightsError("the experts are of another spec than this generator's")
        experts.weights.check_finite()
        super().fill(experts)
        self.weights = experts.weights.flat().detach().clone().to(self.weights)

    def resize(self, experts: int, descriptions: int) -> None:
        """Makes room for numbered experts, whose tensors are loaded next."""
        super().resize(experts, descriptions)
        self.weights = self.weights.new_zeros(experts, self.spec.numel)

    def stored(self) -> Weights:
        """The experts, as `Weights` of batch size E."""
        return self.spec.from_flat(self.weights)


def top_softmax(logits: Tensor, top_k: int | None, temperature: float | Tensor = 1.0) -> Tensor:
    """Softmax of the `top_k` largest entries of the last axis; the others get exactly 0.

    Args:
        logits: `[..., E]`; -inf excludes an entry.
        top_k: Entries that are kept; all when None, or when there are fewer.
        temperature: Divides the logits.
    """
    if top_k is None or top_k >= logits.shape[-1]:
        return (logits / temperature).softmax(-1)
    values, index = logits.topk(top_k, dim=-1)
    share = (values / temperature).softmax(-1)
    return torch.zeros_like(logits).scatter(-1, index, share)
