"""The module: optimiser, schedule, metrics, and what a checkpoint holds."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import toy
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hypergen.conditions import HashingEncoder
from hypergen.errors import RunError, UsageError, WeightsError
from hypergen.generators import Objective, TextToLoRA, TransformerGenerator
from hypergen.specs import LoRASpec
from hypergen.training import GeneratorModule, fit, make_objective
from hypergen.training.bank import ListLoader
from hypergen.training.loggers import quiet
from hypergen.training.optim import lr_factor, parameter_groups


def tensors(value):
    """Every tensor anywhere in nested containers."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


# -- optimiser


@pytest.mark.parametrize("make", [TransformerGenerator, TextToLoRA])
def test_only_matrices_decay(make):
    spec = LoRASpec(toy.Net(), "all-linear", r=2)
    built = GeneratorModule(make(spec, HashingEncoder(16)), weight_decay=0.3)
    decay, rest = parameter_groups(built, built.weight_decay)
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    names = {id(p): name for name, p in built.generator.named_parameters()}
    decayed = {names.pop(id(p)) for p in decay["params"]}
    kept = {names.pop(id(p)) for p in rest["params"]}
    assert not names
    assert all(p.dim() > 1 for p in decay["params"])
    assert sum(p.numel() for p in decay["params"]) > sum(p.numel() for p in rest["params"])
    assert not any(
        part in name for name in decayed for part in ("embedding", "norm", "bias", "offset")
    )
    assert {n for n in kept if "embedding" in n}
    assert {n for n in kept if n.endswith("offset")}


def test_what_is_trained_of_an_objective_is_optimised_and_what_is_frozen_not():
    built = toy.module(toy.ToyData(), objective=Judge())
    parameters = {id(p) for group in parameter_groups(built, 0.1) for p in group["params"]}
    assert id(built.objective.scale) in parameters
    assert not parameters & {id(p) for p in built.objective.teacher.parameters()}


@pytest.mark.parametrize(
    ("step", "settings", "expected"),
    [
        (0, {"warmup": 10}, 1 / 11),
        (9, {"warmup": 10}, 10 / 11),
        (10, {"warmup": 10}, 1.0),
        (55, {"warmup": 10}, 0.5),
        (100, {"warmup": 10}, 0.0),
        (100, {"warmup": 10, "final": 0.1}, 0.1),
        (4, {"warmup": 0.05}, 5 / 6),
        (5, {"warmup": 0.05}, 1.0),
        (0, {"warmup": 0}, 1.0),
        (70, {"warmup": 0.05, "schedule": "constant"}, 1.0),
        (70, {"warmup": 0.05, "total": math.inf}, 1.0),
    ],
)
def test_the_learning_rate(step, settings, expected):
    factor = lr_factor(step, **{"total": 100, **settings})
    assert math.isclose(factor, expected, abs_tol=1e-12)


def test_the_optimiser_follows_the_settings():
    rates = []

    class Record(Callback):
        def on_train_batch_start(self, trainer, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    data = toy.ToyData()
    built = toy.module(data, lr=0.5, warmup=2, final_lr=0.1, betas=(0.7, 0.8), weight_decay=0.2)
    trainer = fit(built, data, max_steps=4, callbacks=[Record()])
    expected = [0.5 * lr_factor(s, total=4, warmup=2, final=0.1) for s in range(4)]
    assert rates == pytest.approx(expected)
    assert trainer.optimizers[0].defaults["betas"] == (0.7, 0.8)
    assert [g["weight_decay"] for g in trainer.optimizers[0].param_groups] == [0.2, 0.0]


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.0},
        {"weight_decay": -1.0},
        {"warmup": -1},
        {"final_lr": 2.0},
        {"ema_decay": 1.0},
        {"schedule": "linear"},
    ],
)
def test_a_setting_out_of_range_is_named(settings):
    (name,) = settings
    with pytest.raises(UsageError, match=name):
        toy.module(toy.ToyData(), **settings)


# -- training


def test_training_learns_the_tasks():
    data = toy.ToyData(samples_per_task=16)
    built = toy.module(data, dropout=0.0, lr=1e-2)
    data.val_splits = {"train": "train"}
    trainer = fit(built, data, max_steps=150, val_every=150)
    weights = built.generator.generate(["is it blue or red", "is it round or green"])
    tasks = torch.tensor([data.suite.names.index(n) for n in ("red-blue", "green-round")])
    base = data.suite.score(data.target, data.spec.neutral(2), tasks)
    score = data.suite.score(data.target, weights, tasks)
    assert float(trainer.callback_metrics["val/score"]) > 0.8
    assert bool((score > 0.75).all())
    assert bool((score > base).all())


def test_two_fits_warm_start_each_other():
    data = toy.ToyData()
    first = toy.module(data, objective="reconstruction", dropout=0.0, lr=1e-2)
    fit(first, data, max_steps=40)
    before = {k: v.clone() for k, v in first.generator.state_dict().items()}
    second = GeneratorModule(first.generator, "task", lr=1e-5, warmup=0)
    fit(second, data, max_steps=1)
    after = second.generator.state_dict()
    distance = max(float((after[k] - before[k]).abs().max()) for k in after)
    assert 0 < distance < 1e-4


def test_an_encoder_can_be_trained_along():
    data = toy.ToyData(learnt=True)
    built = toy.module(data, dropout=0.0)
    before = data.encoder.embedding.weight.clone()
    fit(built, data, max_steps=3)
    assert not torch.equal(data.encoder.embedding.weight, before)


def test_a_plain_trainer_with_plain_loaders_does_too():
    data = toy.ToyData()
    data.setup("fit")
    objective = make_objective("task", data)
    batches = [data.train_dataloader().draw(i) for i in range(3)]
    loader = ListLoader([partial(batches.__getitem__, i) for i in range(3)])
    built = toy.module(data, objective=objective)
    with quiet():
        trainer = Trainer(
            max_steps=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(built, loader, ListLoader([lambda: batches[0]]))
    assert set(trainer.callback_metrics) == {"val/loss"}  # no suite: the loss alone
    with torch.no_grad():
        built.eval()
        expected = built.generator.loss(batches[0], objective)
    torch.testing.assert_close(trainer.callback_metrics["val/loss"], expected)


def test_no_number_is_read_off_the_device_between_logs():
    reads = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._local_scalar_dense.default and (
                args[0].is_floating_point() or args[0].dtype == torch.bool
            ):
                reads.append(built.global_step)
            return func(*args, **(kwargs or {}))

    data = toy.ToyData()
    built = toy.module(data, ema_decay=0.9)
    with Watch():
        fit(built, data, max_steps=25, log_every=10)
    assert {9, 19} <= set(reads)  # the watch sees the logs
    assert set(reads) <= {0, 9, 10, 19, 20}  # 0: the set-up before the first step


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    data = toy.ToyData()
    built = toy.module(data)
    with torch.no_grad():
        next(built.generator.parameters()).fill_(math.nan)
    with pytest.raises(WeightsError, match=r"the loss became nan before step 4: lower lr=0\.003"):
        fit(built, data, tmp_path / "run", max_steps=20, log_every=5)
    assert not (tmp_path / "run" / "generator").exists()


def test_a_named_objective_needs_a_data_module():
    data = toy.ToyData()
    built = toy.module(data)
    with quiet(), pytest.raises(UsageError, match="'task' is given by name, which needs a data"):
        Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False).fit(
            built, ListLoader([dict]), ListLoader([dict])
        )


def test_training_needs_an_objective():
    data = toy.ToyData()
    with pytest.raises(UsageError, match="no objective"):
        fit(toy.module(data, objective=None), data, max_steps=1)


# -- validation


def test_the_score_is_the_suites_and_the_loss_the_objectives():
    data = toy.ToyData()
    built = toy.module(data)
    data.val_splits = {"val": "val", "heldout_tasks": "train"}
    data.eval_batch = 3  # unequal batches are averaged over tasks
    trainer = fit(built, data, max_steps=5, val_every=5)
    tasks = torch.tensor([20, 21, 22, 23])
    texts = [data.suite.descriptions["val"][task][0] for task in tasks.tolist()]
    score = data.suite.score(data.target, built.generator.generate(texts), tasks, "val").mean()
    metrics = trainer.callback_metrics
    torch.testing.assert_close(metrics["val/score"], score)
    assert {"val/loss", "val/score/heldout_tasks", "val/loss/heldout_tasks"} <= set(metrics)


def test_without_stored_weights_for_a_task_there_is_a_score_but_no_loss():
    data = toy.ToyData()
    trainer = fit(toy.module(data, objective="reconstruction"), data, max_steps=2, val_every=2)
    assert "val/score" in trainer.callback_metrics
    assert "val/loss" not in trainer.callback_metrics


# -- checkpoints


class Judge(Objective):
    """An objective with a frozen network, and one number that is trained."""

    needs = frozenset({"inputs"})

    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Linear(123, 7).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, weights, batch):
        return (weights.flat() * self.scale).square().mean()


class Backbone(HashingEncoder):
    """An encoder with a frozen backbone, kept as `TextEncoder` keeps its own."""

    def __init__(self, dim: int = 32, max_length: int = 512) -> None:
        super().__init__(dim, max_length)
        self._loaded = [nn.Linear(123, 7)]


def test_a_checkpoint_holds_nothing_that_is_frozen(tmp_path):
    data = toy.ToyData()
    suite, _, target = data.build()
    data._given = (suite, Backbone(), target)
    data._parts = data._given
    built = toy.module(data, objective=Judge(), ema_decay=0.9)
    fit(built, data, tmp_path, max_steps=3)
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    names = {f"generator.{name}" for name in built.generator.state_dict()}
    assert set(checkpoint["state_dict"]) == {*names, "objective.scale"}
    frozen = {(123,), (7,), (7, 123), *(tuple(p.shape) for p in target.model.parameters())}
    own = {tuple(p.shape) for p in built.generator.parameters()}
    assert (7, 123) in frozen - own
    assert len(checkpoint.pop("losses")) == 3  # since the last log
    found = list(tensors(checkpoint))
    assert {tuple(t.shape) for t in found} & (frozen - own) == set()
    # Parameters, two moments and a step for each, their average, and the buffers: nothing else.
    trained = sum(p.numel() for p in built.generator.parameters()) + 1
    count = len(list(built.generator.parameters())) + 1
    buffers = sum(b.numel() for b in built.generator.state_dict().values()) - (trained - 1)
    total = sum(t.numel() for t in found)
    assert total == 3 * trained + count + (trained - 1) + buffers


def test_a_module_made_by_hand_is_rebuilt_from_its_checkpoint_alone(tmp_path):
    data = toy.ToyData()
    built = toy.module(data, lr=0.02, betas=(0.8, 0.95))
    fit(built, data, tmp_path, max_steps=3)
    again = GeneratorModule.load_from_checkpoint(
        tmp_path / "checkpoints/last.ckpt", weights_only=True
    )
    assert (again.lr, again.betas, again.recipe) == (0.02, (0.8, 0.95), "task")
    one = built.generator.generate("is it red or old").flat()
    assert torch.equal(again.generator.generate("is it red or old").flat(), one)
    assert (
        GeneratorModule.load_from_checkpoint(
            tmp_path / "checkpoints/last.ckpt", generator=built.generator, lr=0.5
        ).lr
        == 0.5
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint, read."""
    folder = tmp_path_factory.mktemp("saved")
    data = toy.ToyData()
    fit(toy.module(data), data, folder, max_steps=1)
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def test_the_generators_tensors_are_checked_strictly(saved, tmp_path):
    key = "generator.head.offset"
    state = saved["state_dict"]
    cases = {
        f"lacks tensor '{key}'": {k: v for k, v in state.items() if k != key},
        "unexpected tensor 'generator.extra'": {**state, "generator.extra": torch.ones(1)},
        f"'{key}' has shape \\[3\\]": {**state, key: torch.ones(3)},
    }
    for message, changed in cases.items():
        torch.save({**saved, "state_dict": changed}, tmp_path / "a.ckpt")
        with pytest.raises(RunError, match=message):
            GeneratorModule.load_from_checkpoint(tmp_path / "a.ckpt")


class Harmful:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_nothing_is_unpickled(saved, tmp_path, capsys):
    path = tmp_path / "a.ckpt"
    torch.save({**saved, "extra": Harmful()}, path)
    with pytest.raises(RunError, match="not a readable checkpoint"):
        GeneratorModule.load_from_checkpoint(path)
    with pytest.raises(UsageError, match="weights_only=True only"):
        GeneratorModule.load_from_checkpoint(path, weights_only=False)
    assert "unpickled" not in capsys.readouterr().out


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"nonsense")
    torch.save({"state_dict": {}}, tmp_path / "b.ckpt")
    for name, message in (
        ("a.ckpt", "not a readable"),
        ("b.ckpt", "not a checkpoint of a generator"),
        ("c.ckpt", "does not exist"),
    ):
        with pytest.raises(RunError, match=message):
            GeneratorModule.load_from_checkpoint(tmp_path / name)
