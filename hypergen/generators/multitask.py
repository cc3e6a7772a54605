"""One set of weights for all conditions: what a generator has to beat."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from hypergen._utils.errors import WeightsError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.base import Generator
from hypergen.specs import Weights, WeightSpec


class MultiTask(Generator):
    """The same learned weights whatever the condition says.

    The multi-task adapter that Text-to-LoRA (arXiv:2506.06105) leads by 0.3 to 1.1 points. As a
    generator it is trained on the very batches, steps and schedule of those that it is compared
    with, and starts as they do: as the unchanged base.

    Args:
        spec: What to emit.
        encoder: Only its kind of input matters; nothing is read of it.
        file: A file of `Weights.save` with one set of weights to start from.

    Raises:
        WeightsError: The file's weights do not fit.
    """

    def __init__(
        self, spec: WeightSpec, encoder: ConditionEncoder, file: str | None = None
    ) -> None:
        # What was loaded is saved with the generator: the file is not asked for again.
        super().__init__(spec, encoder, {"file": None})
        self.weights = nn.Parameter(spec.initial(0))
        if file is not None:
            weights = Weights.load(Path(file))
            if len(weights) != 1 or weights.spec != spec:
                raise WeightsError(f"{file} does not hold one set of weights of {spec!r}")
            with torch.no_grad():
                self.weights.copy_(weights.flat()[0])

    def forward(self, condition: Condition) -> Weights:
        """The weights, once for each row of the condition."""
        return self.spec.from_flat(self.weights.expand(len(condition), -1))
