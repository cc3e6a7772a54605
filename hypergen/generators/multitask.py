"""One set of weights for all conditions: what a generator has to beat."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from hypergen._utils.errors import WeightsError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.base import Generator, load_generator
from hypergen.specs import Weights, WeightSpec


class MultiTask(Generator):
    """The same learned weights whatever the condition says.

    The multi-task adapter that Text-to-LoRA (arXiv:2506.06105) leads by 0.3 to 1.1 points. As a
    generator it is trained on the very batches, steps and schedule of those that it is compared
    with, and starts as they do: as the unchanged base.

    Args:
        spec: What to emit.
        encoder: Only its kind of input matters; nothing is read of it.
        file: What to start from, see `stored_start`.

    Raises:
        WeightsError: The stored weights do not fit.
        RunError: There are none, or they are damaged.
    """

    def __init__(
        self, spec: WeightSpec, encoder: ConditionEncoder, file: str | None = None
    ) -> None:
        # What was loaded is saved with the generator: the file is not asked for again.
        super().__init__(spec, encoder, {"file": None})
        self.weights = nn.Parameter(stored_start(spec, file))

    def shared_weights(self, batch: int = 1) -> Weights:
        """The weights without a condition, `batch` times."""
        return self.spec.from_flat(self.weights.expand(batch, -1))

    def forward(self, condition: Condition) -> Weights:
        """The weights, once for each row of the condition."""
        return self.shared_weights(len(condition))


def stored_weights(path: str | Path) -> Weights:
    """One set of weights: a file of `Weights.save`, or the run folder of a `MultiTask`.

    Raises:
        RunError: There is neither, or it is damaged.
        WeightsError: The run is of another generator.
    """
    if Path(path).is_file():
        return Weights.load(Path(path))
    generator = load_generator(path)
    if not isinstance(generator, MultiTask):
        raise WeightsError(f"{path} is a run of {type(generator).__name__}, not of MultiTask")
    return generator.shared_weights().detach()


def stored_start(spec: WeightSpec, path: str | Path | None = None) -> Tensor:
    """What a generator starts from, `[numel]`: stored weights of its spec, or the spec's own start.

    Args:
        spec: What the weights must be of.
        path: See `stored_weights`; the spec's start when not given.

    Raises:
        RunError: There is nothing, or it is damaged.
        WeightsError: It is of another generator or spec, or several sets.
    """
    if path is None:
        return spec.initial(0)
    weights = stored_weights(path)
    if len(weights) != 1 or weights.spec != spec:
        raise WeightsError(f"{path} does not hold one set of weights of {spec!r}")
    return weights.flat()[0].detach().clone()
