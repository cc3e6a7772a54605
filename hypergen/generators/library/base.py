"""What all generators that hold trained experts share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypergen._utils.errors import ConditionError, SpecError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.base import Generator
from hypergen.generators.library.experts import ExpertDescriptions, ExpertLibrary, Experts
from hypergen.specs import Weights, WeightSpec

if TYPE_CHECKING:
    from typing_extensions import Self

ObjectiveFn = Callable[[Weights, Mapping[str, Any]], Tensor]


class DescribedExperts(Generator):
    """A generator that knows what a number of experts are described by.

    The experts come from `from_weights`, or from the data module when training starts (`prepare`).
    Their number and names are kept in `config`, their tensors in buffers, so that the generator is
    saved and loaded like any other.

    The experts' conditions are encoded once, so the encoder must be frozen.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition; its pooled vector is compared.
        library: Holds the experts.
        config: The subclass's own constructor arguments.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        library: ExpertDescriptions,
        config: Mapping[str, Any],
    ) -> None:
        held = {"experts": list(library.names), "descriptions": len(library.pooled)}
        super().__init__(spec, encoder, {**held, **config})
        if any(p.requires_grad for p in encoder.parameters()):
            raise ConditionError(
                f"{type(self).__name__} compares conditions with stored ones, and "
                f"{type(encoder).__name__} is trained: freeze it, or take a frozen encoder"
            )
        self.library = library

    @property
    def device(self) -> torch.device:
        """Device of the experts: there may be no parameters."""
        return self.library.pooled.device

    @classmethod
    def from_weights(
        cls,
        weights: Weights,
        descriptions: Sequence[Any],
        encoder: ConditionEncoder,
        **options: Any,
    ) -> Self:
        """Builds a generator on trained experts.

        Args:
            weights: `E` networks of one spec.
            descriptions: `E` of them: a raw input of the encoder each, or a list of several.
            encoder: The encoder.
            **options: Further arguments of the constructor.

        Raises:
            ConditionError: Another number of descriptions, or one that cannot be encoded.
            WeightsError: An expert holds NaN or infinity.
        """
        generator = cls(weights.spec, encoder, **options)
        generator.fill(Experts.encode(weights, descriptions, encoder))
        return generator.eval()

    def fill(self, experts: Experts) -> None:
        """Takes these experts in place of those that are there.

        Raises:
            ConditionError: Their conditions have another width.
            WeightsError: They are of another spec, or not finite.
        """
        self.library.fill(experts)
        self._note_sizes()

    def _note_sizes(self) -> None:
        self.config["experts"] = list(self.library.names)
        self.config["descriptions"] = len(self.library.pooled)

    def prepare(self, data: Any) -> None:
        """Takes the experts of a data module's zoo, unless there are some already.

        Args:
            data: Has `experts()`, which returns `Experts`.

        Raises:
            ConditionError: It has none.
        """
        if len(self.library):
            return
        if not hasattr(data, "experts"):
            raise ConditionError(
                f"{type(self).__name__} has no experts, and {type(data).__name__} provides none: "
                "build it with from_weights"
            )
        self.fill(data.experts().merged())

    def load_tensors(self, state: Mapping[str, Tensor], origin: str = "the state dict") -> None:
        """Loads every tensor; an empty library first makes room for the experts of the state.

        Raises:
            RunError: A tensor lacks, is left over or does not fit.
        """
        weights, owner = state.get("library.weights"), state.get("library.owner")
        if not len(self.library) and owner is not None:
            count = int(owner.max()) + 1 if weights is None and len(owner) else 0
            self.library.resize(count if weights is None else len(weights), len(owner))
            self._note_sizes()
        super().load_tensors(state, origin)

    def left_out(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Experts that a training batch's conditions must not see: those of their own tasks.

        Returns:
            `[U, E]` bool; None when not training, or when the batch names no tasks.
        """
        if not self.training or "tasks" not in batch:
            return None
        tasks = batch["tasks"].to(self.device)
        if "gather" in batch:  # several networks share a condition
            shared = tasks.new_full((len(batch["condition"]),), -1)
            tasks = shared.scatter(0, batch["gather"].to(self.device), tasks)
        return self.library.own(tasks)


class LibraryGenerator(DescribedExperts):
    """A generator whose output is made of trained experts.

    Subclasses implement `route` or `forward`. While training, an expert of a row's own task is
    never offered to it: on new tasks there is none either.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition; its pooled vector is compared.
        experts: Names of the experts; none for a library that is filled later.
        descriptions: Number of their descriptions.
        config: The subclass's own constructor arguments.
    """

    library: ExpertLibrary

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        experts: Sequence[str],
        descriptions: int,
        config: Mapping[str, Any],
    ) -> None:
        library = ExpertLibrary(spec, encoder.dim, experts, descriptions)
        super().__init__(spec, encoder, library, config)

    def loss(self, batch: Mapping[str, Any], objective: ObjectiveFn) -> Tensor:
        """Scalar training loss of a batch, each row without the experts of its own task."""
        weights = self(batch["condition"], self.left_out(batch))
        return objective(weights[batch["gather"]] if "gather" in batch else weights, batch)

    def similarity(self, condition: Condition, without: Tensor | None = None) -> Tensor:
        """Cosine to each expert, `[B, E]`; -inf where `without` `[B, E]` excludes it."""
        similarity = self.library.similarity(condition.pooled)
        return similarity if without is None else similarity.masked_fill(without, -torch.inf)


def check_mixing(
    top_k: int | None, temperature: float, mix: str = "tensors", spec: WeightSpec | None = None
) -> None:
    """Raises SpecError on settings that are out of range, or a mix that the spec does not have."""
    from hypergen.specs import LoRASpec

    if top_k is not None and top_k < 1:
        raise SpecError(f"top_k must be at least 1, not {top_k}")
    if temperature <= 0:
        raise SpecError(f"temperature must be positive, not {temperature}")
    if mix not in ("tensors", "updates"):
        raise SpecError(f"mix {mix!r} is neither tensors nor updates")
    if mix == "updates" and not isinstance(spec, LoRASpec):
        raise SpecError(f"mix='updates' needs a LoRASpec, not {type(spec).__name__}")
