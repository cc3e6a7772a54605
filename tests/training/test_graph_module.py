"""Training a graph hypernetwork: it learns, resumes exactly, and survives bad networks."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback

import hypergen
from hypergen.errors import RunError, UsageError, WeightsError
from hypergen.generators.graph import GraphHypernetwork
from hypergen.training import fit
from hypergen.training.architectures import ImageArchitectures, TextArchitectures
from hypergen.training.graph_module import GraphHypernetworkModule
from hypergen.training.loggers import quiet
from hypergen.zoo.architectures import ArchitectureSpace, ImageProblem
from hypergen.zoo.architectures.files import load_setting
from hypergen.zoo.architectures.functional import predicted_norm

SPACE = ArchitectureSpace({"mlp": 1.0}, (4, 6), (1, 2), max_parameters=20_000)
ENCODER = {"name": "transformer", "dim": 16, "layers": 1}


def data(**options):
    given = {"space": SPACE, "meta_batch": 2, "batch_size": 32, "epoch": 4, "eval_samples": 100}
    return ImageArchitectures("digits", **{**given, "val_architectures": 2, **options})


def module(**options):
    torch.manual_seed(0)
    network = GraphHypernetwork(ENCODER, {"name": "low_rank", "rank": 8, "features": 32})
    return GraphHypernetworkModule(network, **{"lr": 1e-2, **options})


def tensors(built):
    return {n: p.detach().clone() for n, p in built.generator.named_parameters()}


class Stop(Callback):
    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step == 7:
            raise RuntimeError("stopped")


def test_a_resumed_run_is_the_straight_one_bit_by_bit(tmp_path):
    options = {"max_steps": 10, "checkpoint_every": 5, "log_every": 3, "val_every": 4}
    straight = module(ema_decay=0.9)
    fit(straight, data(), tmp_path / "a", **options)
    with pytest.raises(RuntimeError, match="stopped"):
        fit(module(ema_decay=0.9), data(), tmp_path / "b", callbacks=[Stop()], **options)
    torch.manual_seed(99)
    resumed = module(ema_decay=0.9)
    fit(resumed, data(), tmp_path / "b", resume=True, **options)
    expected, got = tensors(straight), tensors(resumed)
    assert all(torch.equal(expected[n], got[n]) for n in expected)
    assert (tmp_path / "a/metrics.csv").read_text() == (tmp_path / "b/metrics.csv").read_text()
    loaded = hypergen.load(tmp_path / "a")
    assert isinstance(loaded, GraphHypernetwork)
    assert all(torch.equal(expected[n], p) for n, p in loaded.named_parameters())
    assert load_setting(tmp_path / "a") == (ImageProblem(), SPACE)
    again = GraphHypernetworkModule.load_from_checkpoint(tmp_path / "a/checkpoints/last.ckpt")
    assert again.hparams == straight.hparams


def test_it_learns_to_give_weights_to_unseen_networks():
    built = module(warmup=0.1, norm_penalty=0.0, lr=2e-2)
    own = data(meta_batch=3)
    before = fit(built, own, max_steps=1, val_every=1).callback_metrics
    after = fit(built, own, max_steps=40, val_every=40).callback_metrics
    assert before["val/score"] < 0.2
    assert after["val/score"] > 0.25
    assert after["val/loss"] < before["val/loss"] - 0.2


def test_every_trained_parameter_gets_a_gradient_and_the_loss_is_the_mean():
    built, own = module(norm_penalty=0.1), data()
    built.connect(own)
    batch = next(iter(own.train_dataloader()))
    built.track = lambda loss: None
    loss = built.training_step(batch, 0)
    loss.backward()
    without = [n for n, p in built.generator.named_parameters() if p.grad is None]
    # Narrow perceptrons have no kernels, and no row or direction beyond the rank.
    assert all(any(p in name for p in ("kernel", "share", "project")) for name in without)
    losses, _ = built._losses(batch)
    norms = torch.stack([predicted_norm(w) for w in built.generator(batch.graphs)])
    assert torch.allclose(loss, losses.mean() + 0.1 * norms.mean())


def test_the_cap_scales_gradients_down_and_not_the_logged_loss():
    logged = []
    gradients = []
    for cap in (None, 1.0, 100.0):
        built, own = module(norm_penalty=0.0, loss_cap=cap), data(meta_batch=1, pool=1)
        built.connect(own)
        built.track = lambda loss: logged.append(float(loss))
        built.training_step(next(iter(own.train_dataloader())), 0).backward()
        own = [p.grad for p in built.generator.parameters() if p.grad is not None]
        gradients.append(torch.cat([g.flatten() for g in own]))
    assert logged[0] == logged[1] == logged[2] > 1
    assert torch.allclose(gradients[1] * logged[0], gradients[0], atol=1e-5)
    assert torch.equal(gradients[2], gradients[0])


class Break(GraphHypernetworkModule):
    """Its loss is not finite in some steps."""

    bad = range(2, 4)

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * torch.nan if batch_idx in self.bad else loss

    def configure_gradient_clipping(self, optimizer, **kwargs):
        self.before = tensors(self)
        super().configure_gradient_clipping(optimizer, **kwargs)


def test_a_step_without_a_finite_gradient_is_left_out():
    class Watch(Callback):
        changed: list[bool] = []  # noqa: RUF012

        def on_train_batch_end(self, trainer, pl_module, *args):
            before, after = pl_module.before, tensors(pl_module)
            self.changed.append(not all(torch.equal(before[n], after[n]) for n in before))

    plain = module()
    watch = Watch()
    built = Break(plain.generator, lr=1e-2)
    fit(built, data(epoch=100), max_steps=6, callbacks=[watch])
    assert watch.changed == [True, True, False, False, True, True]
    assert all(p.isfinite().all() for p in built.generator.parameters())


def test_many_of_them_are_an_error(monkeypatch):
    monkeypatch.setattr("hypergen.training.graph_module._GIVE_UP", 3)
    monkeypatch.setattr(Break, "bad", range(2, 100))
    with pytest.raises(WeightsError, match="no finite gradient"):
        fit(Break(module().generator), data(epoch=100), max_steps=20)


def test_bfloat16_and_label_smoothing(tmp_path):
    built = module(label_smoothing=0.1)
    trainer = fit(built, data(), max_steps=3, val_every=3, precision="bf16-mixed", log_every=1)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    assert all(p.dtype == torch.float32 for p in built.generator.parameters())


def test_the_test_scores_every_split(tmp_path):
    own = data(test_architectures=2)
    built = module()
    trainer = fit(built, own, tmp_path, max_steps=1)
    with quiet():
        (found,) = trainer.test(built, datamodule=own, verbose=False)
    assert set(found) == {
        f"test/{what}{tail}" for what in ("loss", "score") for tail in ("", "/wide", "/deep")
    }


def test_what_cannot_train_is_refused():
    for options in ({"label_smoothing": 1.0}, {"norm_penalty": -1}, {"loss_cap": 0.0}, {"lr": 0}):
        with pytest.raises(UsageError, match=next(iter(options))):
            module(**options)
    with pytest.raises(UsageError, match="ImageArchitectures"):
        module().connect(object())
    with pytest.raises(RunError, match="not of a graph hypernetwork"):
        module().start_from(torch.nn.Linear(1, 1), "x")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("family", ["cells", "resnet", "convnext", "vit", "mlp", "gpt", "llama"])
def test_every_family_trains_in_bfloat16_and_every_tensor_gets_a_gradient(family, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("all the world's a stage, and all the men and women merely players " * 9)
    space = ArchitectureSpace({family: 1.0}, (4, 8), (1, 2), norm_free=0.5)
    options = {"space": space, "meta_batch": 2, "batch_size": 4}
    tokens = family in ("gpt", "llama")
    own = TextArchitectures(str(path), context=8, **options) if tokens else data(**options)
    batch = next(iter(own.train_dataloader()))
    built = module()
    built.connect(own)
    made = []
    built.generator.register_forward_hook(lambda _, __, out: made.extend(out))
    plain = built._losses(batch)[0]
    for weights in made:
        weights.flat().retain_grad()
    plain.sum().backward()
    for weights in made:
        grads = weights.spec.from_flat(weights.flat().grad).named()
        # Biases of keys change nothing, and the few rectifiers of a squeeze may all be at rest.
        free = ("bias", "squeeze", "excite")
        dead = [n for n, g in grads.items() if not g.any() and not any(f in n for f in free)]
        assert not dead
    with torch.autocast("cpu", torch.bfloat16):
        losses = built._losses(batch)[0]
    assert torch.allclose(losses, plain, atol=0.3, rtol=0.1)
    losses.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in built.generator.parameters())
