"""Target: a frozen network that is called with generated weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from hypergen._utils.errors import WeightsError
from hypergen.specs import Weights, WeightSpec
from hypergen.specs.models import another_base, check_base


class Target(nn.Module, ABC):
    """A frozen network plus the spec of the weights that it takes.

    `target(weights, batch)` runs `B` differently adapted networks in one call: the first axis of
    every tensor of the batch holds `N` samples in `B` equal, consecutive blocks, the first `N / B`
    of which belong to the first network. The call is differentiable with respect to the weights.

    The network is put in evaluation mode and its parameters stop requiring gradients; their values
    are never changed.

    Args:
        model: The frozen network.
        spec: What the weights mean; must have been made for this network.

    Raises:
        WeightsError: The spec was made for another base model; names both.
    """

    def __init__(self, model: nn.Module, spec: WeightSpec) -> None:
        super().__init__()
        check_base(model, spec.config.get("base"))
        self.model = model.eval().requires_grad_(False)
        self.spec = spec

    def train(self, mode: bool = True) -> Target:
        """Stays in evaluation mode: the target is frozen, its dropout and statistics too."""
        return super().train(False)

    @abstractmethod
    def call(self, weights: Weights, *args: Any, **kwargs: Any) -> Any:
        """Runs the network; arguments are checked and split already."""

    def forward(self, weights: Weights, batch: Any) -> Any:
        """Runs the network with generated weights.

        Args:
            weights: `B` networks of this target's spec.
            batch: The network's input: a tensor, a tuple of arguments or a mapping of keyword
                arguments, `N` samples, `N` a multiple of `B`.

        Returns:
            What the network returns, for `N` samples.

        Raises:
            WeightsError: Weights of another spec, or `N` is not a multiple of `B`.
        """
        args, kwargs = as_arguments(batch)
        self.check(weights, *args, *kwargs.values())
        return self.call(weights, *args, **kwargs)

    def generate(self, weights: Weights, *, seed: int | Sequence[int] = 0, **options: Any) -> Any:
        """Writes text with generated weights, by transformers' own `generate`.

        The prompts of a network are a block of rows, as in a call. Beams and several return
        sequences use the network of their prompt. Whatever made the weights is not called again.

        Args:
            weights: `B` networks of this target's spec; one serves all prompts.
            seed: Seed of `do_sample`, or one for each of the `N` prompts. A prompt's draws depend
                on its seed and on the number of the return sequence alone, so the other prompts of
                the batch do not matter; with sampled beams they do, which draw as transformers
                does, by the first seed.
            **options: `input_ids` `[N, L]`, `attention_mask` (prompts of a causal model are padded
                on the left), `max_new_tokens`, `num_beams`, `num_return_sequences`, `do_sample`
                and all else that the model's `generate` takes.

        Returns:
            What the model's `generate` returns: tokens `[N · num_return_sequences, L + new]`.

        Raises:
            WeightsError: Weights of another spec, or `N` is not a multiple of `B`.
            UsageError: No prompts, prompts of a causal model that are padded on the right, or a
                network that writes no text.
        """
        from hypergen.targets.decoding import decode

        return decode(self, weights, seed, options)

    @property
    def keeps_cache(self) -> bool:
        """Whether decoding may go on from keys and values (else it reads all again)."""
        return True

    def decoder(self, weights: Weights, samples: int) -> AbstractContextManager[Any]:
        """A context in which a model writes text with the weights.

        Args:
            weights: `B` networks.
            samples: Number of prompts N; the rows of the model's calls are a multiple of it.
        """
        raise WeightsError(f"{type(self).__name__} does not write text")

    def check(self, weights: Weights, *values: Any) -> None:
        """Checks that weights are of this spec and samples can be split over them.

        Raises:
            WeightsError: Otherwise.
        """
        if weights.spec is not self.spec and weights.spec != self.spec:
            raise WeightsError(self._difference(weights.spec))
        for value in values:
            if isinstance(value, Tensor) and value.dim() and value.shape[0] % len(weights):
                raise WeightsError(
                    f"{value.shape[0]} samples cannot be split evenly over {len(weights)} networks"
                )

    def base(self, batch: Any) -> Any:
        """Runs the unchanged network."""
        args, kwargs = as_arguments(batch)
        return self.model(*args, **kwargs)

    def _difference(self, spec: WeightSpec) -> str:
        base, own = spec.config.get("base"), self.spec.config.get("base")
        if base != own:
            return another_base(base or {}, own or {})
        theirs = {slot.name: slot for slot in spec}
        for slot in self.spec:
            if slot.name not in theirs:
                return f"the target takes slot {slot.name!r}, which the weights do not have"
            if theirs[slot.name] != slot:
                return (
                    f"slot {slot.name!r} is {slot.shape} in the target and "
                    f"{theirs[slot.name].shape} in the weights"
                )
        return "the weights have another spec than the target (other slots or settings)"


def samples_of(weights: Weights, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Number of samples N of a call: the longest first axis, at least one for each network."""
    tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.dim()]
    return max((t.shape[0] for t in tensors), default=len(weights))


def as_arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A batch as positional and keyword arguments."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, (tuple, list)):
        return tuple(batch), {}
    return (batch,), {}
