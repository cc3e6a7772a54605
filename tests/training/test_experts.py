"""Generators made of experts take them from the data module, and train and resume like others."""

from __future__ import annotations

import pytest
import torch
import toy

from hypergen.conditions import HashingEncoder
from hypergen.errors import ConditionError, UsageError
from hypergen.generators import (
    Generator,
    NearestExpert,
    RoutedExperts,
    SGLoRA,
    WeightedExperts,
)
from hypergen.training import GeneratorModule, ZooDataModule, fit
from hypergen.training.objectives import make_objective


def made(cls: type[Generator], data, **options) -> Generator:
    torch.manual_seed(0)
    return cls(data.spec, data.encoder, **options)


def test_a_data_module_hands_over_its_zoo_with_descriptions_and_tasks():
    data = toy.ToyData()
    experts = data.experts()
    weights, tasks = data.zoo
    assert torch.equal(experts.weights.flat(), weights.flat())
    assert experts.owner.tolist() == [i for i in range(20) for _ in range(2)]
    assert experts.tasks.tolist() == [t for t in tasks.tolist() for _ in range(2)]
    texts = [text for task in tasks.tolist() for text in data.suite.descriptions["train"][task]]
    assert torch.equal(experts.pooled, data.encoder(texts).pooled)
    assert list(experts.names) == texts[::2]


def test_a_trained_encoder_is_refused():
    with pytest.raises(UsageError, match="freeze the encoder"):
        toy.ToyData(learnt=True).experts()


def test_experts_are_taken_once_and_not_again():
    data = toy.ToyData()
    net = made(NearestExpert, data)
    net.prepare(data)
    assert len(net.library) == 20
    text = data.suite.descriptions["train"][6][1]
    assert torch.equal(net.generate(text).flat()[0], data.zoo[0].flat()[6])
    net.library.weights.zero_()
    net.prepare(data)
    assert not net.library.weights.any()
    with pytest.raises(ConditionError, match="provides none"):
        made(NearestExpert, data).prepare(object())


@pytest.mark.parametrize(
    ("cls", "options", "objective"),
    [
        (RoutedExperts, {"hidden": 8}, "task"),
        (
            RoutedExperts,
            {"hidden": 8, "coefficients": "free"},
            {"task": 1.0, "reconstruction": 0.1},
        ),
        (SGLoRA, {"latent": 4, "hidden": 16, "kl_steps": 5}, "elbo"),
        (SGLoRA, {"latent": 4, "hidden": 16}, {"elbo": 1.0, "task": 0.5}),
    ],
)
def test_training_moves_every_parameter_and_stays_finite(cls, options, objective):
    data = toy.ToyData()
    net = made(cls, data, **options)
    module = GeneratorModule(net, objective, lr=1e-2)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    fit(module, data, max_steps=12)
    assert len(net.library) == 20
    for name, parameter in net.named_parameters():
        assert bool(torch.isfinite(parameter).all()), name
        assert not torch.equal(parameter, before[name]), name
    assert torch.isfinite(net.generate(["say yes if it is red and old"]).flat()).all()


@pytest.mark.parametrize(
    ("cls", "objective"), [(RoutedExperts, "task"), (SGLoRA, "elbo")], ids=["routed", "sg_lora"]
)
def test_a_run_that_was_cut_off_goes_on_exactly(cls, objective, tmp_path):
    def run(folder, steps, resume=False):
        data = toy.ToyData()
        net = made(cls, data, hidden=8)
        module = GeneratorModule(net, objective, lr=1e-2, schedule="constant", warmup=0)
        fit(module, data, folder, max_steps=steps, resume=resume)
        return net.state_dict()

    whole = run(tmp_path / "whole", 8)
    run(tmp_path / "cut", 4)
    resumed = run(tmp_path / "cut", 8, resume=True)
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    module = GeneratorModule.load_from_checkpoint(tmp_path / "whole" / "checkpoints" / "last.ckpt")
    loaded = Generator.from_pretrained(tmp_path / "whole" / "generator")
    for name, tensor in module.generator.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_learned_routing_beats_what_it_starts_from():
    data = toy.ToyData(tasks_per_batch=16, samples_per_task=16)
    net = made(RoutedExperts, data, hidden=16, coefficients="free")
    net.prepare(data)
    objective = make_objective("task", data)
    start = made(WeightedExperts, data, top_k=None)
    start.prepare(data)
    batch = next(iter(data.train_dataloader()))
    with torch.no_grad():
        before = float(start.train().loss(batch, objective))
    fit(GeneratorModule(net, "task", lr=1e-2), data, max_steps=60)
    with torch.no_grad():
        after = float(net.train().loss(batch, objective))
    assert after < before - 0.01


def test_a_zoo_on_disk_provides_experts(tmp_path):
    from hypergen.specs import FullSpec
    from hypergen.zoo.store import Architecture, Block, Header, Row, Task, ZooWriter

    spec = FullSpec(torch.nn.Linear(4, 3))
    names = [f"{a} {b}" for a in ("red", "green", "blue", "old") for b in ("cat", "dog", "fish")]
    tasks = {name: Task((f"Find the {name}.", f"Is it a {name}?")) for name in names}
    rows = [Row(f"{name}-{seed}", 1, "net", name, seed) for name in names for seed in range(2)]
    flat = torch.randn(len(rows), spec.numel, generator=torch.Generator().manual_seed(0))
    header = Header("words", tasks=tasks, architectures={"net": Architecture(spec)})
    with ZooWriter(tmp_path / "zoo", header) as writer:
        writer.append([Block("net", flat, rows)])
    data = ZooDataModule(str(tmp_path / "zoo"), HashingEncoder(32), batch_size=6, epoch=5)
    experts = data.experts()
    kept = data.splits["train"]
    assert torch.equal(experts.weights.flat(), kept.flat())
    assert len(experts.pooled) == 2 * len(kept)
    net = made(SGLoRA, data, latent=3, hidden=8)
    fit(GeneratorModule(net, "elbo", lr=1e-2), data, max_steps=5)
    assert len(net.library) == len(kept)
    assert torch.isfinite(net.generate("Find the red cat.").flat()).all()
