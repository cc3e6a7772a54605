"""Training on stories: one set of weights for all questions of a story."""

from __future__ import annotations

import json

import pytest
import tiny_documents as documents
import torch

import hypergen
from hypergen import cli
from hypergen.errors import UsageError
from hypergen.generators import MLPGenerator
from hypergen.generators.fast_weights.generative_adapter import GenerativeAdapter
from hypergen.training import GeneratorModule, fit
from hypergen.training.objectives import make_objective
from hypergen.training.stories import StoryDataModule

LORA = {"r": 2, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return documents.save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    rows = documents.stories(12)
    return documents.write_stories(tmp_path_factory.mktemp("text") / "stories.jsonl", rows)


def data(model, stories, **options):
    given = {
        "method": LORA,
        "encoder": documents.HashedDocuments(16),
        "tasks_per_batch": 2,
        "epoch": 3,
    }
    return StoryDataModule(stories, model, **{**given, **options})


def first(module):
    return next(iter(module.train_dataloader()))


@pytest.mark.parametrize("method", [LORA, {"num_virtual_tokens": 3}])
def test_questions_of_a_story_share_its_weights(model, stories, method):
    module = data(model, stories, method=method, distillation=0.5)
    generator = MLPGenerator(module.spec, module.encoder, hidden=8, depth=1)
    for parameter in generator.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    calls = []
    forward = generator.forward
    generator.forward = lambda c: calls.append(len(c)) or forward(c)
    batch = first(module)
    loss = generator.loss(batch, make_objective("task", module))
    loss.backward()
    assert calls == [2]
    assert "gather" not in batch
    assert all(p.grad.abs().sum() > 0 for p in generator.parameters())
    assert len(batch["labels"]) == 2  # packed
    assert batch["teacher_logits"].shape[:2] == batch["labels"].shape
    names = [module.suite.names[task] for task in batch["tasks"]]
    assert set(names) <= {"s0", "s1", "s6", "s7"}


def test_distillation_by_name_is_the_same_divergence(model, stories):
    module = data(model, stories, cross_entropy=0.0, distillation=1.0)
    task, name = (make_objective(o, module) for o in ("task", "distillation"))
    batch = first(module)
    weights = module.spec.neutral(2)
    share = batch["share"]
    own = {**batch, "share": torch.ones_like(share)}
    assert float(task(weights, own)) == pytest.approx(float(name(weights, batch)), rel=1e-5)


def test_it_learns_answers_and_resumes_bit_by_bit(model, stories, tmp_path):
    def run(folder, steps, **options):
        module = data(model, stories, encoder="document", encoder_args={"chunk_size": 8})
        torch.manual_seed(0)
        generator = GenerativeAdapter(module.spec, module.encoder, state_rank=4)
        made = GeneratorModule(generator, "task", lr=3e-2, schedule="constant")
        trainer = fit(made, module, folder, max_steps=steps, log_every=1, val_every=3, **options)
        return generator.state_dict(), trainer

    straight, trainer = run(tmp_path / "a", 8)
    assert 0 <= float(trainer.callback_metrics["val/score"]) <= 1
    rows = (tmp_path / "a" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/loss")
    losses = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    assert sum(losses[-2:]) < 0.8 * sum(losses[:2])
    run(tmp_path / "b", 4)
    resumed, _ = run(tmp_path / "b", 8, resume=True)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    suite = json.loads((tmp_path / "a" / "suite.json").read_text())
    assert suite["class"] == "StorySuite"


def test_an_encoder_that_is_trained_gets_the_story(model, stories):
    batch = first(data(model, stories, encoder=documents.Trained(16)))
    assert all(isinstance(text, str) for text in batch["raw"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": documents.HashedDemos(16)}, "takes 'demos', not documents"),
        ({"cross_entropy": 0.0}, "one of them above 0"),
        ({"distillation": -1.0}, "must not be negative"),
        ({"method": {"rank": 2}}, "method:"),
        ({"stories": "none.jsonl"}, r"none\.jsonl does not exist"),
        ({"stories": None}, "--data.stories"),
    ],
)
def test_a_wrong_option_is_named(model, stories, options, message):
    given = {"stories": stories, **options}
    with pytest.raises(UsageError, match=message):
        first(data(model, given.pop("stories"), **given))


@pytest.mark.parametrize("name", ["generative_adapter_smollm2", "caclm_smollm2"])
def test_the_recipe_trains_on_any_model(name, model, stories, tmp_path, root, capfd):
    run, text = tmp_path / "run", documents.write_text(tmp_path / "text")
    words = ["-c", str(root / "configs" / f"{name}.yaml"), "--run", str(run)]
    words += [f"--data.model={model}", "--data.dtype=float32", "--data.encoder_args.chunk_size=16"]
    words += ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"]
    if name.startswith("caclm"):
        words += [f"--data.text={text}", "--data.window=48", "--data.val_share=0.3"]
        words += ["--data.encoder_args.modules=[layers.0.self_attn.q_proj]"]
    else:
        words += [f"--data.stories={stories}"]
    assert cli.main(["fit", *words]) == 0
    assert capfd.readouterr().out == ""
    generator = hypergen.load(run)
    weights = generator.generate(document=["cat dog cow hen", "cup car pen"])
    assert len(weights) == 2
    assert not torch.equal(weights.flat()[0], weights.flat()[1])
