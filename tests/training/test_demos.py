"""Training on demonstrations, with a language model of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_language as tiny
import torch

import hypergen
from hypergen import cli
from hypergen.conditions import DemoEncoder, FusedEncoder
from hypergen.errors import UsageError
from hypergen.generators import TransformerGenerator
from hypergen.training import GeneratorModule, fit
from hypergen.training.demos import DemoDataModule

RECIPE = Path(__file__).parents[2] / "configs" / "hypertuning_smollm2.yaml"
SMALL = {
    "encoder": "hashing",
    "method": {"r": 2, "target_modules": ["q_proj", "v_proj"]},
    "max_length": 64,
    "eval_samples": 4,
    "tasks_per_batch": 2,
    "width": 16,
    "demos_max": 4,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    made = tiny.causal()
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    def family(task, name):
        words = ("cat", "dog", "cow", "hen", "fox", "owl")
        return {
            **task,
            "Categories": [name],
            "Definition": [f"{task['Definition'][0]} {w}" for w in words],
        }

    return tiny.write_tasks(
        tmp_path_factory.mktemp("tasks"),
        kinds=family(tiny.kinds(), "kinds"),
        swapped=family(tiny.kinds(True), "kinds"),
        first=family(tiny.first_of_two(), "lists"),
        echo=family(tiny.echo(), "echo"),
        last=family(tiny.first_of_two(), "last"),
    )


def data(model, tasks, **options):
    return DemoDataModule(model=model, tasks=str(tasks), **{**SMALL, **options})


def first(module, count):
    loader = iter(module.train_dataloader())
    return [next(loader) for _ in range(count)]


def asked(module, batch):
    """The inputs of the loss of each network."""
    texts = module.suite.language_model.tokenizer.batch_decode(batch["inputs"]["input_ids"])
    return [
        {part.partition(" Output")[0].replace(" ,", ",") for part in text.split("Input : ")[1:]}
        for text in texts
    ]


@pytest.mark.parametrize("pack", [True, False])
def test_demonstrations_are_never_in_the_loss_of_their_network(model, tasks, pack):
    module = data(model, tasks, samples_per_task=6, pack=pack, val_families=0.0)
    counts = []
    for batch in first(module, 30):
        rows = 1 if pack else 6
        inputs = asked(module, batch)
        inputs = [set().union(*inputs[i : i + rows]) for i in range(0, len(inputs), rows)]
        for task, demos, own in zip(batch["tasks"], batch["raw"]["demos"], inputs, strict=True):
            shown = {given for given, _ in demos}
            train = module.suite.tasks[int(task)].instances["train"]
            assert len(shown) == len(demos)
            assert shown | own <= {row.input for row in train}
            assert not shown & own
            assert set(demos) <= {(row.input, row.outputs[0]) for row in train}
            counts.append(len(demos))
    assert set(counts) == {0, 1, 2, 3, 4}
    assert "Positive" not in str(batch["raw"])


def test_batches_depend_on_their_number_alone(model, tasks):
    module = data(model, tasks, description_dropout=0.5, temperature=2.0)
    batches = first(module, 8)
    for i, batch in enumerate(batches):
        loader = module.train_dataloader()
        loader.load_state_dict({"position": i})
        again = next(iter(loader))
        assert again["raw"] == batch["raw"]
        assert torch.equal(again["inputs"]["input_ids"], batch["inputs"]["input_ids"])
        assert len(batch["gather"]) == 2
    assert len({str(batch["raw"]) for batch in batches}) == 8


def test_descriptions_are_dropped_but_never_with_the_demonstrations(model, tasks):
    module = data(model, tasks, description_dropout=0.5)
    rows = [
        pair
        for batch in first(module, 100)
        for pair in zip(batch["raw"]["text"], batch["raw"]["demos"], strict=True)
    ]
    with_demos = [text for text, demos in rows if demos]
    assert 0.35 < sum(text is None for text in with_demos) / len(with_demos) < 0.65
    assert all(text for text, demos in rows if not demos)
    alone = data(model, tasks, describe=False, demos_min=2)
    assert isinstance(alone.encoder, DemoEncoder)
    batch = first(alone, 1)[0]
    assert all(2 <= len(demos) <= 4 for demos in batch["raw"])


def test_each_text_goes_through_the_frozen_encoder_once(model, tasks, tmp_path, monkeypatch):
    module = data(model, tasks, cache=str(tmp_path / "cache"))
    encoder = module.encoder
    assert isinstance(encoder, FusedEncoder)
    reader, seen = encoder.encoders["demos"], []
    embed = reader.encoder.embed
    monkeypatch.setattr(reader.encoder, "embed", lambda texts: seen.extend(texts) or embed(texts))
    module.bank("train", "train")
    assert len(seen) == len(set(seen)) > 20
    before = len(seen)
    for batch in first(module, 5):
        encoder(batch["raw"])
    assert len(seen) == before
    again = data(model, tasks, cache=str(tmp_path / "cache"))
    other = again.encoder.encoders["demos"]
    monkeypatch.setattr(other.encoder, "embed", lambda texts: pytest.fail("embedded again"))
    again.bank("train", "train")
    assert all(torch.equal(other._cache[text], reader._cache[text]) for text in reader._cache)


def test_validation_reads_the_same_demonstrations_each_time(model, tasks):
    module = data(model, tasks, demos_shown=2)
    one, two = (list(module.val_dataloader()) for _ in range(2))
    assert [b["raw"] for b in one] == [b["raw"] for b in two]
    (batch,) = one
    for task, demos, text in zip(batch["tasks"], *map(batch["raw"].get, ("demos", "text")),
                                 strict=True):  # fmt: skip
        own = module.suite.tasks[int(task)]
        scored = {row.input for row in own.instances["test"]}
        assert len(demos) == 2
        assert not scored & {given for given, _ in demos}
        assert text in own.descriptions


def test_training_reaches_the_maps_and_lowers_the_loss(model, tasks, tmp_path):
    module = data(model, tasks, val_families=0.0, tasks_per_batch=3)
    torch.manual_seed(0)
    net = TransformerGenerator(module.spec, module.encoder, dim=16, depth=1, heads=2)
    before = {name: p.clone() for name, p in net.named_parameters()}
    trained = GeneratorModule(net, "task", lr=1e-2)
    trainer = fit(trained, module, tmp_path / "run", max_steps=40, val_every=20, log_every=20)
    assert {"val/score", "val/loss", "train/loss"} <= set(trainer.callback_metrics)
    names = [n for n, p in net.named_parameters() if torch.equal(p, before[n])]
    assert not [n for n in names if n.startswith("encoder")]
    again = hypergen.load(tmp_path / "run")
    demos = [{"input": "cat", "output": "animal"}]
    for inputs in ({"demos": demos}, {"text": "say it", "demos": demos}, {"text": "say it"}):
        assert torch.equal(again.generate(**inputs).flat(), net.generate(**inputs).flat())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"demos_min": 5}, "demos_min=5 and demos_max=4"),
        ({"demos_max": 0}, "demos_max=0"),
        ({"describe": False}, "demos_min must be 1 or more"),
        ({"demos_shown": -1}, "demos_shown=-1"),
        ({"demo_pool": 0}, "demo_pool=0"),
        ({"description_dropout": 1.0}, "description_dropout=1.0"),
        ({"prompt": {"examples": 2}}, r"prompt\.examples"),
        ({"heldout_families": 1.5}, "heldout_families=1.5"),
    ],
)
def test_a_wrong_option_is_named(model, tasks, options, message):
    with pytest.raises(UsageError, match=message):
        data(model, tasks, **options).build()


def test_the_recipe_trains_validates_and_generates(model, tasks, tmp_path, capfd):
    run, out = tmp_path / "run", tmp_path / "adapter"
    line = ["-c", str(RECIPE), "--run", str(run), "--data.encoder=hashing"]
    line += [f"--data.model={model}", f"--data.tasks={tasks}", "--data.heldout_families=[kinds]"]
    line += ["--data.max_length=64", "--data.eval_samples=4", "--data.multitask_steps=1"]
    line += ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]
    line += ["--trainer.val_check_interval=1", "--trainer.log_every_n_steps=1"]
    assert cli.main(["fit", *line]) == 0
    assert cli.main(["fit", *line, "--trainer.max_steps=3", "--resume"]) == 0
    capfd.readouterr()
    assert cli.main(["test", *line]) == 0
    assert json.loads(capfd.readouterr().out).keys() >= {"test/score", "test/loss"}
    generator = hypergen.load(run)
    assert type(generator).__name__ == "SharedPlusDelta"
    assert type(generator.delta).__name__ == "TransformerGenerator"
    (tmp_path / "demos.jsonl").write_text('{"input": "cat", "output": ["cat"]}\n')
    words = ["--demos", str(tmp_path / "demos.jsonl"), "--text", "say it again"]
    assert cli.main(["generate", str(run), *words, "--out", str(out)]) == 0
    assert (out / "adapter_model.safetensors").is_file()
    capfd.readouterr()
    assert cli.main(["evaluate", str(run), "--no-oracle", "--json"]) == 0  # by its descriptions
    found = json.loads(capfd.readouterr().out)["splits"]["heldout_tasks"]
    assert {"base", "multitask", "generated", "shuffled"} <= set(found)
