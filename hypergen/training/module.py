"""The LightningModule that trains any generator with any objective."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from hypergen._utils.errors import RunError, UsageError
from hypergen.generators import Generator, Objective
from hypergen.training.base import TrainingModule
from hypergen.training.objectives import make_objective


class GeneratorModule(TrainingModule):
    """Trains a generator: AdamW, warm-up, cosine decay, averaged weights, exact resume.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101.
    Matrices decay; norms, biases, embeddings and the start θ0 of the heads do not.

    Dropout and other noise of a step depend on (`seed`, number of the batch, process) alone, so
    that a resumed run repeats the one that was not interrupted bit by bit. Checkpoints hold the
    generator (and what else is trained), never a frozen target or text backbone, and describe the
    generator themselves: `load_from_checkpoint` needs nothing else.

    Batches are dictionaries, see `TaskDataModule`. Metrics: `train/loss` (mean since the last
    log), `train/lr`, and `train/stage` (1 or 2) of generators that are trained in two stages; and,
    averaged over the tasks of a split, `val/loss` (if the batch has what the objective reads) and
    `val/score` (if the data module has a suite).

    Args:
        generator: What is trained.
        objective: What for: a name, names with weights (see `make_objective`), or an instance.
            Names need a data module that provides target, suite and zoo.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay of the matrices.
        betas: Adam's decay rates.
        warmup: Steps of linear warm-up; below 1, a fraction of all steps.
        schedule: What follows it, `"cosine"` decay to `final_lr` or `"constant"`.
        final_lr: Learning rate at the end of the cosine, as a fraction of `lr`.
        ema_decay: Decay of the averaged weights, see `GeneratorEMA`; 0 for none.
        seed: Seed of dropout and noise.

    Raises:
        UsageError: A setting is out of range.
    """

    def __init__(
        self,
        generator: Generator,
        objective: str | dict[str, float] | Objective | None = "task",
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup: float = 0.05,
        schedule: Literal["cosine", "constant"] = "cosine",
        final_lr: float = 0.0,
        ema_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            generator,
            lr,
            weight_decay,
            betas,
            warmup,
            schedule,
            final_lr,
            ema_decay,
            seed,
            {"objective": None if isinstance(objective, Objective) else objective},
        )
        self.generator: Generator
        self.recipe = None if isinstance(objective, Objective) else objective
        self.objective = objective if isinstance(objective, Objective) else None
        self._connected: Any = None  # the data module that the objective was built from

    # -- set-up --------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Settings beside the generator, as a recipe says them."""
        return {**super().describe(), "objective": self.recipe or type(self.objective).__name__}

    def connect(self, data: Any) -> None:
        """Builds an objective that is given by name, and asks for the batches that it reads.

        The generator takes what it needs of the data, see `Generator.prepare`.

        Args:
            data: The data module.

        Raises:
            UsageError: There is no objective, or no data module to build it from.
        """
        if self.recipe is not None and (self.objective is None or self._connected is not data):
            if data is None:
                raise UsageError(
                    f"the objective {self.recipe!r} is given by name, which needs a data module: "
                    "pass datamodule= to the trainer, or an Objective instance"
                )
            self.objective, self._connected = make_objective(self.recipe, data), data
        if self.objective is not None and hasattr(data, "needs"):
            data.needs = self.objective.needs
        if data is not None:
            self.generator.prepare(data)

    def setup(self, stage: str) -> None:
        """Connects the data module, and puts the generator in training mode.

        Raises:
            UsageError: There is no objective to train for, or none can be built.
        """
        self.connect(getattr(self.trainer, "datamodule", None))
        if stage == "fit":
            if self.objective is None:
                raise UsageError("there is no objective to train for: pass objective=")
            self.begin()

    # -- training ------------------------------------------------------------------------------

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The objective's loss; logged, and checked to be finite, on logging steps only.

        Raises:
            WeightsError: The loss is NaN or infinite.
        """
        assert self.objective is not None
        loss = self.generator.loss(self._encoded(batch), self.objective)
        self.track(loss)
        return loss

    def _encoded(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Encodes raw descriptions, when the encoder is trained too."""
        if "condition" in batch or "raw" not in batch:
            return batch
        encoder, raw = self.generator.encoder, batch["raw"]
        inputs = raw if encoder.input_name == "fused" else {encoder.input_name: raw}
        return {**batch, "condition": self.generator.encode(**inputs)}

    # -- evaluation ----------------------------------------------------------------------------

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Logs loss and score of held-out tasks."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Logs loss and score of the test splits."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Mapping[str, Any], stage: str) -> None:
        batch = self._encoded(batch)
        tail = f"/{batch['name']}" if batch.get("name") else ""
        size = len(batch.get("tasks", batch["condition"]))
        values: dict[str, Tensor] = {}
        if self.objective is not None and self.objective.needs <= batch.keys():
            values["loss"] = self.generator.loss(batch, self.objective)
        data = getattr(self.trainer, "datamodule", None)
        if data is not None and hasattr(data, "score"):
            weights = self.generator.generate(condition=batch["condition"], seed=self.seed)
            split = batch.get("split", stage)
            values["score"] = data.score(weights, batch["tasks"], split).mean().to(self.device)
        for name, value in values.items():
            self.log(
                f"{stage}/{name}{tail}",
                value,
                on_step=False,
                on_epoch=True,
                batch_size=size,
                sync_dist=self.trainer.world_size > 1,
            )

    @classmethod
    def rebuild(cls, config: Mapping[str, Any], origin: str) -> Generator:
        """A generator from what a checkpoint says of it."""
        return Generator.from_dict(config, origin=origin)

    def start_from(self, other: Any, name: str) -> None:
        """Copies another run's weights into the generator: a warm start.

        Raises:
            RunError: It generates for another target, or is another kind of generator.
        """
        if getattr(other, "spec", None) != self.generator.spec:
            raise RunError(f"--init {name}: that run generates for another target")
        self.generator.load_tensors(other.state_dict(), origin=f"--init {name}")

    def read_generator(self, folder: Path, data: Any) -> None:
        """Takes the trained generator of a run.

        Raises:
            RunError: It generates for another target than the data module's.
        """
        generator = Generator.from_pretrained(folder, encoder=data.encoder)
        if generator.spec != data.spec:
            raise RunError(f"{folder.parent} generates for another target than this recipe's")
        self.generator = generator
