"""What every module that trains a generator has in common: optimiser, metrics, exact resume."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from hypergen._utils.errors import RunError, UsageError, WeightsError
from hypergen._utils.seeding import stable_seed
from hypergen.training.checkpoints import read_checkpoint
from hypergen.training.ema import GeneratorEMA
from hypergen.training.optim import lr_factor, parameter_groups

if TYPE_CHECKING:
    from typing_extensions import Self

_PREFIX = "generator."


class TrainingModule(LightningModule):
    """AdamW, warm-up, cosine decay, averaged weights, exact resume.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101.
    Matrices decay; norms, biases, embeddings and the start θ0 of the heads do not.

    Dropout and other noise of a step depend on (`seed`, number of the batch, process) alone, so
    that a resumed run repeats the one that was not interrupted bit by bit. Checkpoints hold the
    generator (and what else is trained), never a frozen target or text backbone.

    A subclass defines `training_step`, which calls `track`.

    Args:
        generator: What is trained; `to_dict` describes it.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay of the matrices.
        betas: Adam's decay rates.
        warmup: Steps of linear warm-up; below 1, a fraction of all steps.
        schedule: What follows it, `"cosine"` decay to `final_lr` or `"constant"`.
        final_lr: Learning rate at the end of the cosine, as a fraction of `lr`.
        ema_decay: Decay of the averaged weights, see `GeneratorEMA`; 0 for none.
        seed: Seed of dropout and noise.
        further: The subclass's own settings, plain values, recorded first.

    Raises:
        UsageError: A setting is out of range.
    """

    def __init__(
        self,
        generator: nn.Module,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        warmup: float,
        schedule: Literal["cosine", "constant"],
        final_lr: float,
        ema_decay: float,
        seed: int,
        further: dict[str, Any],
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
        self.generator: Any = generator
        self.lr, self.weight_decay, self.betas = lr, weight_decay, (betas[0], betas[1])
        self.warmup, self.schedule, self.final_lr = warmup, schedule, final_lr
        self.ema_decay, self.seed = ema_decay, seed
        self.strict_loading = False  # `on_load_checkpoint` is strict about what matters
        # Plain values only: instances would be pickled, and then not load.
        self.save_hyperparameters(
            {
                **further,
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

    # -- set-up --------------------------------------------------------------------------------

    def connect(self, data: Any) -> None:
        """Takes what it needs of the data module, before anything is written."""

    def describe(self) -> dict[str, Any]:
        """Settings beside the generator, as a recipe says them."""
        return dict(self.hparams)

    def begin(self) -> None:
        """Makes ready for a fit."""
        self._window = []
        self.generator.train()  # an earlier fit, or `load`, left it in evaluation mode

    def configure_callbacks(self) -> list[Callback]:
        """The averaging of weights, if asked for."""
        return [GeneratorEMA(self.ema_decay)] if self.ema_decay > 0 else []

    def configure_optimizers(self) -> Any:
        """AdamW with decay for matrices alone, and the schedule by step."""
        groups = parameter_groups(self, self.weight_decay)
        # Where precisions are mixed, Lightning clips no gradients of a fused optimiser.
        fused = "mixed" not in str(self.trainer.precision)
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, fused=fused)
        factor = partial(
            lr_factor,
            total=self.trainer.estimated_stepping_batches,
            warmup=self.warmup,
            schedule=self.schedule,
            final=self.final_lr,
            first=getattr(self.generator, "first_stage", 0) // self.trainer.accumulate_grad_batches,
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

    def track(self, loss: Tensor) -> None:
        """Logs a step's loss, and checks that it is finite, on logging steps only.

        Raises:
            WeightsError: The loss is NaN or infinite.
        """
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every:
            self._window.append(loss.detach())
            if (self.global_step + 1) % every == 0:
                self._log_train()

    def mean_loss(self, losses: Tensor) -> Tensor:
        """What is logged of the losses since the last log."""
        return losses.mean()

    def _log_train(self) -> None:
        losses = torch.stack([loss.to(self.device) for loss in self._window])
        mean = self.mean_loss(losses)
        self._window = []
        if not bool(torch.isfinite(mean)):  # the only place that waits for an accelerator
            raise WeightsError(
                f"the loss became {float(mean)} before step {self.global_step}: lower lr={self.lr}"
            )
        self.log("train/loss", mean, sync_dist=self.trainer.world_size > 1, batch_size=1)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("train/lr", float(rate), batch_size=1)
        if getattr(self.generator, "first_stage", 0):
            self.log("train/stage", float(self.generator.stage), batch_size=1)

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

    @abstractmethod
    def start_from(self, other: Any, name: str) -> None:
        """Copies the weights of another run's generator, `--init name`, into the own one."""

    @abstractmethod
    def read_generator(self, folder: Path, data: Any) -> None:
        """Takes the trained generator of a run's folder, to validate or test it."""

    @classmethod
    @abstractmethod
    def rebuild(cls, config: Mapping[str, Any], origin: str) -> nn.Module:
        """A generator, freshly initialised, from what a checkpoint says of it.

        Args:
            config: What the generator's `to_dict` returned.
            origin: Where it comes from, for messages.
        """

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        *,
        generator: nn.Module | None = None,
        weights_only: bool = True,
        **kwargs: Any,
    ) -> Self:
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
            generator = cls.rebuild(checkpoint["generator"], str(checkpoint_path))
        known = inspect.signature(cls).parameters
        stored = {k: v for k, v in checkpoint["hyper_parameters"].items() if k in known}
        module = cls(generator, **{**stored, **kwargs})
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"], strict=False)
        return module
