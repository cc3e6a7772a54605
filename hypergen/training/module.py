"""The LightningModule that trains any generator with any objective."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor

from hypergen._utils.errors import RunError, UsageError, WeightsError
from hypergen._utils.seeding import stable_seed
from hypergen.generators import Generator, Objective
from hypergen.training.checkpoints import read_checkpoint
from hypergen.training.ema import GeneratorEMA
from hypergen.training.objectives import make_objective
from hypergen.training.optim import lr_factor, parameter_groups

_PREFIX = "generator."


class GeneratorModule(LightningModule):
    """Trains a generator: AdamW, warm-up, cosine decay, averaged weights, exact resume.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101.
    Matrices decay; norms, biases, embeddings and the start θ0 of the heads do not.

    Dropout and other noise of a step depend on (`seed`, number of the batch, process) alone, so
    that a resumed run repeats the one that was not interrupted bit by bit. Checkpoints hold the
    generator (and what else is trained), never a frozen target or text backbone, and describe the
    generator themselves: `load_from_checkpoint` needs nothing else.

    Batches are dictionaries, see `TaskDataModule`. Metrics: `train/loss` (mean since the last
    log), `train/lr`; and, averaged over the tasks of a split, `val/loss` (if the batch has what
    the objective reads) and `val/score` (if the data module has a suite).

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
        super().__init__()
        if schedule not in ("cosine", "constant"):
            raise UsageError(f"schedule {schedule!r} is neither cosine nor constant")
        ranges = (
            ("lr", lr, lr > 0),
            ("weight_decay", weight_decay, weight_decay >= 0),
            ("warmup", warmup, warmup >= 0),
            ("final_lr", final_lr, 0 <= final_lr <= 1),
            ("ema_decay", ema_decay, 0 <= ema_decay < 1),
        )
        for name, value, fits in ranges:
            if not fits:
                raise UsageError(f"{name}={value} is out of range")
        self.generator = generator
        self.recipe = None if isinstance(objective, Objective) else objective
        self.objective = objective if isinstance(objective, Objective) else None
        self.lr, self.weight_decay, self.betas = lr, weight_decay, (betas[0], betas[1])
        self.warmup, self.schedule, self.final_lr = warmup, schedule, final_lr
        self.ema_decay, self.seed = ema_decay, seed
        self.strict_loading = False  # `on_load_checkpoint` is strict about what matters
        # Plain values only: instances would be pickled, and then not load.
        self.save_hyperparameters(
            {
                "objective": self.recipe,
                "lr": lr,
                "weight_decay": weight_decay,
                "betas": list(self.betas),
                "warmup": warmup,
                "schedule": schedule,
                "final_lr": final_lr,
                "ema_decay": ema_decay,
                "seed": seed,
            }
        )
        self._window: list[Tensor] = []
        self._connected: Any = None  # the data module that the objective was built from

    # -- set-up --------------------------------------------------------------------------------

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
            self._window = []
            self.generator.train()  # an earlier fit, or `load`, left it in evaluation mode

    def configure_callbacks(self) -> list[Callback]:
        """The averaging of weights, if asked for."""
        return [GeneratorEMA(self.ema_decay)] if self.ema_decay > 0 else []

    def configure_optimizers(self) -> Any:
        """AdamW with decay for matrices alone, and the schedule by step."""
        groups = parameter_groups(self, self.weight_decay)
        # A fused optimiser unscales gradients itself, after which they cannot be clipped.
        fused = self.trainer.precision != "16-mixed"
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, fused=fused)
        factor = partial(
            lr_factor,
            total=self.trainer.estimated_stepping_batches,
            warmup=self.warmup,
            schedule=self.schedule,
            final=self.final_lr,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    # -- training ------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Makes the noise of this step depend on its number alone."""
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx
        seed = stable_seed("step", self.seed, number, self.global_rank)
        # Not `torch.manual_seed`: it reaches for every kind of device, and formats the stack each
        # time while CUDA sleeps: 0.3 ms a step.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The objective's loss; logged, and checked to be finite, on logging steps only.

        Raises:
            WeightsError: The loss is NaN or infinite.
        """
        assert self.objective is not None
        loss = self.generator.loss(self._encoded(batch), self.objective)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every:
            self._window.append(loss.detach())
            if (self.global_step + 1) % every == 0:
                self._log_train()
        return loss

    def _log_train(self) -> None:
        mean = torch.stack([loss.to(self.device) for loss in self._window]).mean()
        self._window = []
        if not bool(torch.isfinite(mean)):  # the only place that waits for an accelerator
            raise WeightsError(
                f"the loss became {float(mean)} before step {self.global_step}: lower lr={self.lr}"
            )
        self.log("train/loss", mean, sync_dist=self.trainer.world_size > 1, batch_size=1)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("train/lr", float(rate), batch_size=1)

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

    # -- checkpoints ---------------------------------------------------------------------------

    def state_dict(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """The generator, and what is trained of the objective: nothing that is frozen."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        return {
            key: value
            for key, value in state.items()
            if key.startswith(prefix + _PREFIX) or key.removeprefix(prefix) in trained
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what rebuilds the generator, and the losses since the last log."""
        checkpoint["generator"] = self.generator.to_dict()
        checkpoint["losses"] = torch.stack(self._window) if self._window else torch.empty(0)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that everything trained is there and fits.

        Raises:
            RunError: A tensor lacks, is left over or has another shape; names it.
        """
        state, expected = checkpoint["state_dict"], self.state_dict()
        for key in [*expected, *state]:
            if key not in state or key not in expected:
                what = "lacks" if key not in state else "has an unexpected"
                raise RunError(f"the checkpoint {what} tensor {key!r}")
            if state[key].shape != expected[key].shape:
                raise RunError(
                    f"tensor {key!r} has shape {list(state[key].shape)} in the checkpoint, "
                    f"{list(expected[key].shape)} in this run"
                )
        self._window = list(checkpoint.get("losses", torch.empty(0)).unbind())

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        *,
        generator: Generator | None = None,
        weights_only: bool = True,
        **kwargs: Any,
    ) -> GeneratorModule:
        """Rebuilds a module from a checkpoint alone; nothing in it is ever unpickled.

        The tensors are those that were being trained; the averaged ones are in the run folder's
        `generator/`.

        Args:
            checkpoint_path: The file.
            map_location: Device of the tensors.
            generator: Load into this generator instead of building one.
            weights_only: Must be True.
            **kwargs: Settings that replace the stored ones, such as `objective`.

        Raises:
            RunError: The file is missing, damaged or does not fit.
            UsageError: `weights_only=False`.
        """
        if not weights_only:
            raise UsageError("checkpoints are read with weights_only=True only")
        checkpoint = read_checkpoint(checkpoint_path, map_location)
        if generator is None:
            generator = Generator.from_dict(checkpoint["generator"], origin=str(checkpoint_path))
        known = inspect.signature(cls).parameters
        stored = {k: v for k, v in checkpoint["hyper_parameters"].items() if k in known}
        module = cls(generator, **{**stored, **kwargs})
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"], strict=False)
        return module
