"""Prefixes from contexts, with a language model of a few thousand weights."""

from __future__ import annotations

import json

import pytest
import tiny_documents as documents
import tiny_language as tiny
import torch

import hypergen
from hypergen import cli
from hypergen.conditions import ContextEncoder
from hypergen.errors import UsageError
from hypergen.generators import ContextPrefix
from hypergen.specs import PrefixSpec
from hypergen.training import GeneratorModule, fit
from hypergen.training.contexts import ContextDataModule

SMALL = {
    "slots": 24,
    "max_length": 48,
    "eval_samples": 4,
    "tasks_per_batch": 2,
    "samples_per_task": 2,
    "demos_max": 3,
    "prompt": {"description": True},
    "prompt_dropout": 1.0,
    "heldout_wordings": 0,
    "val_wordings": 0,
    "heldout_families": ["last"],
    "val_families": ["echo"],
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    model = tmp_path_factory.mktemp("model")
    made = tiny.causal()
    made.model.save_pretrained(model)
    made.tokenizer.save_pretrained(model)
    tasks = tiny.write_tasks(
        tmp_path_factory.mktemp("tasks"),
        **{
            name: {**task, "Categories": [name]}
            for name, task in (
                ("kinds", tiny.kinds()),
                ("swapped", tiny.kinds(True)),
                ("echo", tiny.echo()),
                ("last", tiny.first_of_two()),
            )
        },
    )
    return {"model": str(model), "tasks": str(tasks)}


def module(data):
    generator = ContextPrefix(data.spec, data.encoder, hidden=4)
    return GeneratorModule(generator, objective="task", lr=1e-2)


def test_the_targets_own_model_reads_what_the_prompt_would_hold(parts):
    data = ContextDataModule(**parts, **SMALL)
    assert isinstance(data.encoder, ContextEncoder)
    assert isinstance(data.spec, PrefixSpec)
    assert data.encoder.reader.model is data.suite.language_model.model
    batch = next(iter(data.train_dataloader()))
    texts = data.encoder.contexts(batch["raw"])
    assert len(texts) == 2
    for text, demos in zip(texts, batch["raw"]["demos"], strict=True):
        assert all(f"Input: {given}\nOutput: {answer}" in text for given, answer in demos[:1])
    asked = data.suite.language_model.tokenizer.batch_decode(batch["inputs"]["input_ids"])
    assert all(text.startswith("Input :") for text in asked)


def test_a_run_is_trained_saved_and_used(parts, tmp_path):
    data = ContextDataModule(**parts, **SMALL)
    made = module(data)
    start = {name: p.detach().clone() for name, p in made.generator.named_parameters()}
    fit(made, data, tmp_path / "run", max_steps=3)
    assert any(not torch.equal(p, start[name]) for name, p in made.generator.named_parameters())
    loaded = hypergen.load(tmp_path / "run")
    demos = [{"input": "cat dog", "output": "dog"}]
    weights = loaded.generate(text="say it", demos=demos)
    expected = made.generator.generate(text="say it", demos=demos)
    torch.testing.assert_close(weights.flat(), expected.flat())
    tasks = torch.tensor(data.suite.task_splits["heldout_tasks"])
    score = data.score(weights[torch.zeros(len(tasks), dtype=torch.long)], tasks, "test")
    assert bool(((score >= 0) & (score <= 1)).all())


def test_prefix_and_reader_are_not_to_be_chosen(parts):
    with pytest.raises(UsageError, match="becomes a prefix"):
        ContextDataModule(**parts, **SMALL, method={"r": 2})
    with pytest.raises(UsageError, match="own model reads"):
        ContextDataModule(**parts, **SMALL, encoder="text")


def test_the_recipe_of_examples_trains_and_is_evaluated(parts, tmp_path, root, capfd):
    run, demos = tmp_path / "run", tmp_path / "demos.jsonl"
    words = ["-c", str(root / "configs" / "context_prefix_smollm2.yaml"), "--run", str(run)]
    words += [f"--data.model={parts['model']}", f"--data.tasks={parts['tasks']}"]
    words += ["--data.dtype=float32", "--data.slots=24", "--data.max_length=48"]
    words += ["--data.heldout_families=[last]", "--data.eval_samples=4", "--data.augment=null"]
    words += ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"]
    assert cli.main(["fit", *words]) == 0
    assert capfd.readouterr().out == ""
    assert cli.main(["evaluate", str(run), "--k", "0", "2", "--lora-steps", "1", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["splits"]["heldout_tasks"]["k"]
    assert {"generated", "generated_plain", "incontext", "lora"} <= set(found["2"])
    demos.write_text('{"input": "cat dog", "output": "dog"}\n')
    said = ["--demos", str(demos), "--text", "say it again", "--out", str(tmp_path / "adapter")]
    assert cli.main(["generate", str(run), *said]) == 0
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_the_recipe_of_stories_trains_on_any_model(parts, tmp_path, root):
    run, stories = tmp_path / "run", documents.write_stories(tmp_path / "stories.jsonl")
    words = ["-c", str(root / "configs" / "context_prefix_stories_smollm2.yaml"), "--run", str(run)]
    words += [f"--data.model={parts['model']}", "--data.dtype=float32"]
    words += [f"--data.stories={stories}", "--data.method.num_virtual_tokens=12"]
    words += ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"]
    assert cli.main(["fit", *words]) == 0
    assert len(hypergen.load(run).generate(document=["cat dog cow hen", "cup car pen"])) == 2
