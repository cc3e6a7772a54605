"""The LightningModule that trains graph hypernetworks through the networks that they generate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hypergen._utils.errors import RunError, UsageError, WeightsError
from hypergen.conditions.graph import ModuleGraph
from hypergen.generators.graph.hypernetwork import GraphHypernetwork
from hypergen.generators.storage import load_strict
from hypergen.training.base import TrainingModule
from hypergen.zoo.architectures import Architecture, LearningProblem
from hypergen.zoo.architectures.functional import call, predicted_norm

_GIVE_UP = 50  # steps in a row without a finite gradient
_EVALUATED = 250  # inputs of a call in validation and test


class MetaBatch:
    """Some architectures, and one batch of inputs for all of them.

    Attributes:
        architectures: The networks.
        graphs: Their graphs.
        inputs: `[N, …]`.
        targets: `[N, …]`.
        name: Split of the architectures, of an evaluation.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Architecture, ModuleGraph]],
        inputs: Tensor,
        targets: Tensor,
        name: str = "",
    ) -> None:
        self.architectures = [architecture for architecture, _ in pairs]
        self.graphs = [graph for _, graph in pairs]
        self.inputs, self.targets, self.name = inputs, targets, name

    def __len__(self) -> int:
        return len(self.graphs)

    def to(self, device: torch.device, **kwargs: Any) -> MetaBatch:
        """Moves inputs and targets."""
        pairs = list(zip(self.architectures, self.graphs, strict=True))
        inputs, targets = (t.to(device, **kwargs) for t in (self.inputs, self.targets))
        return MetaBatch(pairs, inputs, targets, self.name)


class GraphHypernetworkModule(TrainingModule):
    """Trains a graph hypernetwork on meta-batches; see `TrainingModule` for the optimiser.

    The loss is the mean over the architectures of a meta-batch of the cross-entropy on one batch
    of inputs, through the generated weights (Knyazev et al., NeurIPS 2021, arXiv:2110.13100), plus
    the predicted-norm regulariser of GHN-3 (Knyazev et al., ICML 2023, arXiv:2303.04143). A step
    whose gradient is not finite, as networks without normalisation give now and then, is left out.

    Metrics: `train/loss`, `train/lr`; on unseen architectures `val/loss`, `val/score` (accuracy,
    with batch norm by the statistics of the batch) and the same by split in the test.

    Args:
        generator: What is trained.
        label_smoothing: Share of each target that is spread over all classes.
        norm_penalty: Factor of the sum of the norms of all generated tensors, a mean over the
            meta-batch; 3e-5 in GHN-3.
        loss_cap: Gradients of an architecture whose loss is above are scaled down as if it were
            this, so that one bad network does not outweigh the others; no limit when None.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay of the matrices.
        betas: Adam's decay rates.
        warmup: Steps of linear warm-up; below 1, a fraction of all steps.
        schedule: What follows it, `"cosine"` decay to `final_lr` or `"constant"`.
        final_lr: Learning rate at the end of the cosine, as a fraction of `lr`.
        ema_decay: Decay of the averaged weights, see `GeneratorEMA`; 0 for none.
        seed: Seed of noise.

    Raises:
        UsageError: A setting is out of range.
    """

    def __init__(
        self,
        generator: GraphHypernetwork,
        label_smoothing: float = 0.0,
        norm_penalty: float = 3e-5,
        loss_cap: float | None = None,
        lr: float = 4e-4,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup: float = 0.05,
        schedule: Literal["cosine", "constant"] = "cosine",
        final_lr: float = 0.0,
        ema_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        further = {
            "label_smoothing": label_smoothing,
            "norm_penalty": norm_penalty,
            "loss_cap": loss_cap,
        }
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
            further,
        )
        self.generator: GraphHypernetwork
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"label_smoothing={label_smoothing} is out of range")
        if norm_penalty < 0:
            raise UsageError(f"norm_penalty={norm_penalty} is out of range")
        if loss_cap is not None and loss_cap <= 0:
            raise UsageError(f"loss_cap={loss_cap} is out of range")
        self.label_smoothing, self.norm_penalty = label_smoothing, norm_penalty
        self.loss_cap = loss_cap
        self.problem: LearningProblem | None = None
        self._bad = 0

    def connect(self, data: Any) -> None:
        """Learns from the data module what the networks are for.

        Raises:
            UsageError: It has no learning problem.
        """
        problem = getattr(data, "problem", None)
        if not isinstance(problem, LearningProblem):
            raise UsageError(
                "a graph hypernetwork is trained on architectures: pass a data module such as "
                "hypergen.training.architectures.ImageArchitectures"
            )
        self.problem = problem

    def setup(self, stage: str) -> None:
        """Connects the data module, and puts the generator in training mode."""
        self.connect(getattr(self.trainer, "datamodule", None))
        if stage == "fit":
            self.begin()

    # -- training ------------------------------------------------------------------------------

    def training_step(self, batch: MetaBatch, batch_idx: int) -> Tensor:
        """Mean cross-entropy over the meta-batch, and the regulariser."""
        losses, norms = self._losses(batch, self.label_smoothing)
        self.track(losses.detach().mean())
        if self.loss_cap is not None:
            losses = losses * (self.loss_cap / losses.detach()).clamp(max=1.0)
        loss = losses.mean()
        if self.norm_penalty:
            loss = loss + self.norm_penalty * norms.mean()
        return loss

    def _losses(self, batch: MetaBatch, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Cross-entropy `[m]` of each architecture, and the sum of its tensors' norms `[m]`."""
        assert self.problem is not None
        losses, norms = [], []
        generated = self.generator(batch.graphs)
        for architecture, weights in zip(batch.architectures, generated, strict=True):
            outputs = call(architecture, weights.row(), batch.inputs)
            losses.append(self.problem.loss(outputs, batch.targets, smoothing))
            norms.append(predicted_norm(weights))
        return torch.stack(losses), torch.stack(norms)

    def mean_loss(self, losses: Tensor) -> Tensor:
        """The mean of the finite ones: steps that were left out do not count."""
        finite = losses[torch.isfinite(losses)]
        return finite.mean() if len(finite) else losses.mean()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips; leaves a step without a finite gradient out.

        Raises:
            WeightsError: That happened many times in a row.
        """
        own = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in own if p.grad is not None])
        if bool(torch.isfinite(norm)):
            self._bad = 0
            if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
                torch.nn.utils.clip_grads_with_norm_(own, gradient_clip_val, norm)
            elif gradient_clip_val:
                self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        self._bad += 1
        if self._bad >= _GIVE_UP:
            raise WeightsError(
                f"{_GIVE_UP} steps in a row had no finite gradient, up to step "
                f"{self.global_step}: lower lr={self.lr}, or set loss_cap"
            )
        optimizer.zero_grad()

    # -- evaluation ----------------------------------------------------------------------------

    def validation_step(self, batch: MetaBatch, batch_idx: int) -> None:
        """Logs loss and accuracy of unseen architectures."""
        self._evaluate(batch, "val")

    def test_step(self, batch: MetaBatch, batch_idx: int) -> None:
        """Logs loss and accuracy of the splits of unseen architectures."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: MetaBatch, stage: str) -> None:
        assert self.problem is not None
        tail = f"/{batch.name}" if batch.name else ""
        for architecture, weights in zip(
            batch.architectures, self.generator(batch.graphs), strict=True
        ):
            parameters = weights.row()
            losses, hits, sizes = [], [], []
            pieces = zip(*(t.split(_EVALUATED) for t in (batch.inputs, batch.targets)), strict=True)
            for inputs, targets in pieces:
                outputs = call(architecture, parameters, inputs)
                losses.append(self.problem.loss(outputs, targets))
                hits.append(self.problem.correct(outputs, targets).mean())
                sizes.append(len(inputs))
            share = torch.tensor(sizes, device=batch.inputs.device) / sum(sizes)
            values = {"loss": torch.stack(losses) @ share, "score": torch.stack(hits) @ share}
            for name, value in values.items():
                self.log(
                    f"{stage}/{name}{tail}",
                    value,
                    on_step=False,
                    on_epoch=True,
                    batch_size=1,
                    sync_dist=self.trainer.world_size > 1,
                )

    # -- checkpoints ---------------------------------------------------------------------------

    @classmethod
    def rebuild(cls, config: Mapping[str, Any], origin: str) -> nn.Module:
        """A hypernetwork from what a checkpoint says of it."""
        return GraphHypernetwork.from_dict(config, origin=origin)

    def start_from(self, other: Any, name: str) -> None:
        """Copies another run's weights into the generator: a warm start.

        Raises:
            RunError: It is another kind of generator, or of other sizes.
        """
        if not isinstance(other, GraphHypernetwork):
            raise RunError(f"--init {name}: that run is not of a graph hypernetwork")
        load_strict(self.generator, other.state_dict(), f"--init {name}")

    def read_generator(self, folder: Path, data: Any) -> None:
        """Takes the trained generator of a run."""
        self.generator = GraphHypernetwork.from_pretrained(folder)
