from __future__ import annotations

import pytest
import torch
from tiny_language import all_tasks, causal, encoder

from hypergen import cli
from hypergen.errors import UsageError
from hypergen.zoo.build.recipe import Recipe
from hypergen.zoo.store import Zoo, ZooWriter, verify_zoo


@pytest.fixture
def data(tmp_path):
    folder = all_tasks(tmp_path / "tasks")
    (folder / "broken.json").write_text("{")
    for name, made in (("encoder", encoder()), ("causal", causal())):
        made.model.save_pretrained(tmp_path / name)
        made.tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


def recipe(data, model="encoder", **options):
    plain = {
        "recipe": "AdapterZoo",
        "name": "tiny",
        "model": str(data / model),
        "tasks": str(data / "tasks"),
        "method": {"r": 2, "target_modules": ["value" if model == "encoder" else "v_proj"]},
        "steps": 4,
        "samples": 2,
        "tasks_per_job": 2,
        "lr": {"log_uniform": [1e-3, 1e-2]},
        **options,
    }
    return Recipe.from_dict(plain)


def test_a_zoo_of_an_encoder(data, tmp_path):
    made = recipe(data, seeds=2, save_steps=[0, 4])
    header = made.header()
    assert sorted(header.tasks) == ["first", "kinds", "swapped"]
    assert header.tasks["kinds"].family == "Kinds"
    assert len(header.tasks["first"].descriptions) == 4
    assert header.parts == made.jobs() == 2
    assert [made.models(i) for i in range(2)] == [4, 2]
    left_out = header.provenance["left_out"]
    assert left_out["echo"] == "open outputs"
    assert "broken.json is not valid JSON" in left_out["broken.json"]
    assert Recipe.from_dict(made.to_dict()).header() == header
    with ZooWriter(tmp_path / "zoo", header) as writer:
        for job in range(made.jobs()):
            writer.write(job, made.run(job))
    zoo = Zoo(tmp_path / "zoo")
    assert len(zoo) == 12
    row = zoo.rows[1]
    assert row.step == 4
    assert row.metrics["test"].keys() == {"loss", "accuracy", "base_loss", "base_accuracy"}
    assert row.metrics["train"].keys() == {"loss"}
    assert 1e-3 <= row.hyperparameters["lr"] <= 1e-2
    assert row.parent.startswith(str(data / "encoder"))
    assert len({row.run for row in zoo.rows}) == 6
    assert len({row.hyperparameters["lr"] for row in zoo.rows}) == 6
    starts = [i for i, row in enumerate(zoo.rows) if row.step == 0]
    assert len(zoo.flat(starts).unique(dim=0)) == 2  # one for each number
    (own,) = recipe(data, seeds=2, save_steps=[0], shared_start=False).run(0)
    assert len(own.weights.unique(dim=0)) == 4


def test_a_job_gives_the_same_again_and_whatever_the_others(data):
    one, two = recipe(data).run(1), recipe(data).run(1)
    assert torch.equal(one[0].weights, two[0].weights)
    assert one[0].rows == two[0].rows
    # The same adapter out of a stack with other neighbours.
    (together,) = recipe(data, tasks_per_job=3).run(0)
    place = [row.run for row in together.rows].index(one[0].rows[0].run)
    torch.testing.assert_close(together.weights[place], one[0].weights[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        {"r": 2, "target_modules": ["v_proj"]},
        {
            "peft_type": "IA3",
            "target_modules": ["k_proj", "down_proj"],
            "feedforward_modules": ["down_proj"],
        },
    ],
)
def test_a_zoo_of_a_language_model(data, method):
    made = recipe(
        data,
        "causal",
        method=method,
        tasks_per_job=4,
        options={"prompt": {"description": True}},
        evaluation_samples=2,
        without_families=["Copying"],
    )
    (block,) = made.run(0)
    assert block.weights.shape == (3, made.header().architectures["adapter"].spec.numel)
    assert {row.task for row in block.rows} == {"first", "kinds", "swapped"}
    assert bool(block.weights.isfinite().all())


def test_bad_settings_are_named(data, monkeypatch):
    for options, words in [
        ({"steps": 0}, "steps must be at least 1"),
        ({"save_steps": [5]}, "between 0 and steps=4"),
        ({"lr": {"log_uniform": [0, 1]}}, "lr: log_uniform"),
    ]:
        with pytest.raises(UsageError, match=words):
            recipe(data, **options)
    for options, words in [
        ({"method": {"rank": 2}}, "method: LoRA does not take"),
        ({"method": {"peft_type": "NONE"}}, "method: PEFT refuses"),
        ({"only": ["echo"]}, "no task in .* can be trained: .*open outputs"),
        ({"families": ["Lost"]}, "no family 'Lost'"),
    ]:
        with pytest.raises(UsageError, match=words):
            recipe(data, **options).header()
    with pytest.raises(UsageError, match="options: SentenceSuite does not take them"):
        recipe(data, options={"colour": 1}).run(0)
    monkeypatch.delenv("HYPERGEN_DATA", raising=False)
    with pytest.raises(UsageError, match="tasks: FOLDER, or HYPERGEN_DATA"):
        recipe(data, tasks=None).header()


@pytest.mark.parametrize("name", ["zoo_minilm_lora", "zoo_smollm2_lora"])
def test_the_recipes_in_configs_make_zoos(data, tmp_path, root, name):
    model = "encoder" if "minilm" in name else "causal"
    words = ["-c", str(root / "configs" / f"{name}.yaml"), "--out", str(tmp_path / "zoo")]
    words += ["--model", str(data / model), "--tasks", str(data / "tasks"), "--workers", "1"]
    target = "value" if model == "encoder" else "v_proj"
    words += ["--method", f"{{r: 2, target_modules: [{target}]}}"]
    words += ["--steps", "2", "--save_steps", "[1, 2]", "--samples", "2"]
    assert cli.main(["zoo", "build", *words, "--evaluation_samples", "2"]) == 0
    zoo = Zoo(tmp_path / "zoo")
    assert {row.step for row in zoo} == {1, 2}
    assert zoo.complete
    assert verify_zoo(tmp_path / "zoo") == []
