"""Text tasks on a language model of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_language as tiny
import torch
import yaml

import hypergen
from hypergen import cli
from hypergen.conditions import HashingEncoder
from hypergen.errors import RunError, UsageError, WeightsError
from hypergen.evaluation.assets import RunAssets
from hypergen.generators import MultiTask, TextToLoRA
from hypergen.specs import PeftSpec, Weights
from hypergen.training.language import LanguageDataModule
from hypergen.training.objectives import make_objective
from hypergen.training.wordings import VariedBank
from hypergen.zoo import TaskSuite
from hypergen.zoo.language.splits import choose_families

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {
    "encoder": "hashing",
    "method": {"r": 2, "target_modules": ["q_proj", "v_proj"]},
    "max_length": 64,
    "eval_samples": 4,
    "tasks_per_batch": 2,
}


def family(task: dict, name: str, tag: str = "") -> dict:
    first, signs = task["Definition"][0], ("cat", "dog", "cow", "hen", "fox", "owl")
    return {
        **task,
        "Categories": [name],
        "Definition": [f"{first} {s} {tag or name}" for s in signs],
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    made = tiny.causal()
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tasks(tmp_path):
    """Five families, one of two tasks."""
    return tiny.write_tasks(
        tmp_path / "tasks",
        kinds=family(tiny.kinds(), "kinds"),
        swapped=family(tiny.kinds(True), "kinds", "the other way"),
        first=family(tiny.first_of_two(), "lists"),
        echo=family(tiny.echo(), "echo"),
        echo_more=family(tiny.echo(), "more"),
        last=family(tiny.first_of_two(), "last"),
    )


def data(model, tasks, **options):
    return LanguageDataModule(model, str(tasks), **{**SMALL, **options})


def words(module, batch):
    return module.suite.language_model.tokenizer.batch_decode(batch["inputs"]["input_ids"])


def test_families_never_straddle_splits(model, tasks):
    module = data(model, tasks, heldout_families=0.2, val_families=0.2, augment={"per_task": 2})
    suite = module.suite
    of = {name: {suite.tasks[t].family for t in n} for name, n in suite.task_splits.items()}
    assert [len(of[name]) for name in ("train", "val", "heldout_tasks")] == [3, 1, 1]
    assert not of["train"] & (of["val"] | of["heldout_tasks"])
    assert of["augmented"] == of["train"]
    assert module.train_tasks == "augmented"
    assert set(suite.task_splits["train"]) < set(suite.task_splits["augmented"])
    texts = [{s: suite.descriptions[s][t] for s in suite.descriptions} for t in range(6)]
    assert all([len(row[s]) for s in ("train", "val", "heldout")] == [3, 1, 2] for row in texts)
    assert all(
        [*row["train"], *row["val"], *row["heldout"]] == list(task.descriptions)
        for row, task in zip(texts, suite.tasks, strict=False)
    )
    names = [task.family for task in suite.tasks]
    draws = {tuple(choose_families(names, 0.2, 0.2, seed)[0]) for seed in range(8)}
    assert len(draws) > 1


def test_shares_are_of_tasks_and_take_whole_families():
    families = ["large"] * 10 + ["middle"] * 4 + list("abcdef")
    for seed in range(12):
        heldout, val = choose_families(families, 0.25, 0.1, seed)
        assert sum(families.count(name) for name in heldout) == 5
        assert 1 <= sum(families.count(name) for name in val) <= 2
        assert not set(heldout) & set(val)
        assert "large" not in heldout
    assert choose_families(families, ["large"], 0.01)[0] == ["large"]
    assert len(choose_families(families, ["large"], 0.01)[1]) == 1
    assert choose_families(families, 0.0, 0.0) == ([], [])


def test_a_smaller_number_of_training_tasks_is_among_the_larger(model, tasks):
    options = {"heldout_families": ["echo"], "val_families": ["more"]}
    names = {}
    for limit in (None, 3, 1):
        suite = data(model, tasks, **options, train_limit=limit).suite
        names[limit] = {suite.names[t] for t in suite.task_splits["train"]}
        assert [suite.names[t] for t in suite.task_splits["heldout_tasks"]] == ["echo"]
        assert [suite.names[t] for t in suite.task_splits["val"]] == ["echo_more"]
    assert [len(names[limit]) for limit in (None, 3, 1)] == [4, 3, 1]
    assert names[1] < names[3] < names[None]
    with pytest.raises(UsageError, match="train_limit must be 1 or more"):
        data(model, tasks, train_limit=0)


def test_held_out_variants_stay_on_their_side(model, tasks):
    options = {"heldout_families": ["kinds"], "val_families": ["echo"]}
    module = data(model, tasks, **options, augment={"per_task": 1, "heldout": 2})
    splits = module.suite.task_splits
    assert {module.suite.tasks[t].family for t in splits["heldout_variants"]} == {"kinds"}
    assert not set(splits["heldout_variants"]) & set(splits["augmented"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heldout_families": 1.5}, "heldout_families=1.5"),
        ({"heldout_families": ["lists"], "val_families": ["lists"]}, "'lists' is both"),
        ({"heldout_families": 0.7, "val_families": 0.3}, "none is left to train on"),
        ({"heldout_families": ["list"]}, "lists"),
        ({"augment": {"kinds": ["uper"]}}, "upper"),
        ({"prompt": {"descriptions": True}}, "prompt:"),
        ({"method": {"rank": 3}}, "method:"),
        ({"prompt": {"description": True}, "max_length": 12}, "raise max_length=12"),
        ({"encoder": "hash"}, "neither text nor hashing"),
        ({"description_dropout": 1.0}, "description_dropout=1.0"),
        ({"wordings_per_task": 3}, "wordings_per_task=3"),
        ({"oracle_steps": -1}, "oracle_steps"),
    ],
)
def test_a_wrong_option_is_named(model, tasks, options, message):
    with pytest.raises(UsageError, match=message):
        data(model, tasks, **options).build()


def test_a_broken_file_is_left_out_and_named(model, tasks):
    (tasks / "bad.json").write_text("{")
    (tasks / "one.json").write_text(
        json.dumps({**tiny.echo(), "Instances": [tiny.instance("cat", "cat", split="train")]})
    )
    with pytest.warns(UserWarning, match="left out") as caught:
        suite = data(model, tasks).suite
    assert "one" not in suite.names
    texts = " ".join(str(w.message) for w in caught)
    assert "bad.json" in texts
    assert "'one'" in texts


def test_a_batch_holds_different_wordings_of_each_task(model, tasks):
    options = {"wordings_per_task": 2, "tasks_per_batch": 4, "samples_per_task": 3}
    module = data(model, tasks, **options, prompt={"description": True})
    loader = iter(module.train_dataloader())
    for _ in range(5):
        batch = next(loader)
        assert batch["tasks"][0] == batch["tasks"][1] != batch["tasks"][2] == batch["tasks"][3]
        pooled = batch["condition"].pooled
        assert len(pooled.unique(dim=0)) == 4
        assert [text.count("Input") for text in words(module, batch)] == [3] * 4  # packed
    assert torch.equal(batch["tasks"], list(_first(module, 5))[-1]["tasks"])


def test_batches_of_a_group_are_cut_by_length(model, tasks):
    options = {"tasks_per_batch": 2, "temperature": 2.0, "prompt": {"description": True}}
    plain = data(model, tasks, **options)
    module = data(model, tasks, **options, group=4)
    lengths = module._lengths()

    def spread(of):
        return sum(float(lengths[b["tasks"]].diff().abs()) for b in _first(of, 40))

    assert spread(module) < 0.6 * spread(plain)
    batches = list(_first(module, 12))
    for i, batch in enumerate(batches):  # each is a function of its number alone
        loader = module.train_dataloader()
        loader.load_state_dict({"position": i})
        again = next(iter(loader))
        assert torch.equal(again["inputs"]["input_ids"], batch["inputs"]["input_ids"])
    drawn = [int(t) for batch in batches for t in batch["tasks"]]
    assert len(set(drawn)) > 2
    with pytest.raises(UsageError, match="group must be 1 or more"):
        data(model, tasks, group=0)


@pytest.mark.parametrize("pack", [False, True])
def test_the_teacher_is_given_the_description_and_demonstrations(model, tmp_path, pack):
    tasks = tiny.write_tasks(
        tmp_path / "tasks",
        kinds=family(tiny.kinds(), "kinds"),
        echo=family(tiny.echo(), "echo"),
        swapped=family(tiny.kinds(True), "others"),
    )
    options = {"prompt": {"description": True}, "pack": pack, "samples_per_task": 2}
    module = data(model, tasks, **options, prompt_dropout=1.0, teacher_examples=1, max_length=96)
    module.needs = frozenset({"inputs", "teacher_logits"})
    seen = []
    base = module.target.base
    module.target.base = lambda inputs: seen.append(inputs) or base(inputs)
    batch = next(iter(module.train_dataloader()))
    decode = module.suite.language_model.tokenizer.batch_decode
    asked, told = words(module, batch), decode(seen[0]["input_ids"])
    assert not any("say animal" in text or "is it" in text for text in asked)
    assert all("Output : animal Input" in t or "Output : cat Input" in t for t in told), told
    assert batch["teacher_logits"].shape[:2] == batch["labels"].shape
    objective = make_objective("distillation", module)
    weights = module.spec.neutral(2)
    assert float(objective(weights, batch)) > 0
    # The base with the teacher's own prompt has nothing to learn.
    own = {**batch, "inputs": seen[0]}
    assert abs(float(objective(weights, own))) < 1e-6
    plain = data(model, tasks)
    plain.needs = module.needs
    with pytest.raises(UsageError, match=r"set prompt\.description"):
        next(iter(plain.train_dataloader()))


def test_baselines_are_taken_from_runs(model, tasks, tmp_path):
    module = data(model, tasks)
    torch.manual_seed(0)
    adapter = MultiTask(module.spec, module.encoder)
    with torch.no_grad():
        adapter.weights.normal_()
    adapter.save_pretrained(tmp_path / "multitask" / "generator")
    own = data(model, tasks, multitask_plain=str(tmp_path / "multitask"))
    own.save(tmp_path / "run")
    stored = Weights.load(tmp_path / "run" / "baselines" / "multitask_plain.safetensors")
    assert torch.equal(stored.flat()[0], adapter.weights)
    TextToLoRA(module.spec, module.encoder, hidden=8).save_pretrained(tmp_path / "other")
    with pytest.raises(WeightsError, match="not of MultiTask"):
        data(model, tasks, multitask=str(tmp_path / "other")).save(tmp_path / "run")
    wide = data(model, tasks, multitask=str(tmp_path / "multitask"), method={"r": 3})
    with pytest.raises(UsageError, match="the same model, dtype and method"):
        wide.save(tmp_path / "run")
    with pytest.raises(UsageError, match="leave out multitask_steps"):
        data(model, tasks, multitask="somewhere", multitask_steps=3)


def _first(module, count):
    loader = iter(module.train_dataloader())
    return (next(loader) for _ in range(count))


def test_dropped_descriptions_say_nothing():
    texts = [[f"task {t} wording {w}" for w in range(1 + 2 * t)] for t in range(3)]
    bank = VariedBank(HashingEncoder(16), texts, [0, 1, 2], per_task=2, dropout=0.3)
    assert bank.tasks.tolist() == [0, 1, 2]
    position = torch.tensor([0, 0, 1, 1, 2, 2]).repeat(300)
    rows = bank.pick(position, torch.Generator().manual_seed(0))
    dropped = rows == bank.neutral
    assert bank.raw[bank.neutral] == "Do the task."
    assert 0.25 < float(dropped.float().mean()) < 0.35
    assert torch.equal(dropped[::2], dropped[1::2])
    kept = [
        (p, bank.raw[a], bank.raw[b])
        for p, a, b in zip(position[::2].tolist(), *rows.view(-1, 2).T.tolist(), strict=True)
        if a != bank.neutral
    ]
    assert all(one.startswith(f"task {p}") and two.startswith(f"task {p}") for p, one, two in kept)
    assert all((one != two) == (p > 0) for p, one, two in kept)  # the first has a single wording
    assert {one for _, one, _ in kept} == {text for task in texts for text in task}
    plain = VariedBank(HashingEncoder(16), texts, [0, 1, 2])
    assert not bool((plain.pick(position, torch.Generator()) == plain.neutral).any())


def test_validation_reads_test_instances_of_validation_families(model, tasks):
    module = data(model, tasks, val_families=["lists"], heldout_families=["last"])
    batch = next(iter(module.val_dataloader()))
    assert [module.suite.names[t] for t in batch["tasks"].tolist()] == ["first"]
    test = {i.input for i in module.suite.tasks[int(batch["tasks"][0])].instances["test"]}
    shown = {text.partition("Input : ")[2].partition(" Output")[0] for text in words(module, batch)}
    assert {text.replace(" ,", ",") for text in shown} <= test
    assert (
        0
        <= float(
            module.score(
                module.spec.from_flat(torch.zeros(1, module.spec.numel)), batch["tasks"], "val"
            )
        )
        <= 1
    )
    without = data(model, tasks, val_families=0.0)
    assert {b["name"] for b in without.val_dataloader()} == {""}
    assert without.val_splits == {"train": "val"}


def test_other_methods_and_dtypes(model, tasks):
    module = data(model, tasks, method={"peft_type": "IA3"}, dtype="bfloat16")
    assert isinstance(module.spec, PeftSpec)
    assert module.suite.network.dtype == torch.bfloat16
    batch = next(iter(module.train_dataloader()))
    weights = module.spec.from_flat(module.spec.initial(0).expand(2, -1).clone())
    loss = module.suite.loss(module.target(weights, batch["inputs"]), batch)
    assert bool(loss.isfinite())


def test_a_zoo_is_trained_once_for_each_training_task(model, tasks):
    module = data(model, tasks, zoo_steps=2, zoo_samples=2, augment={"per_task": 1})
    weights, numbers = module.zoo
    assert sorted(numbers.tolist()) == module.suite.task_splits["train"]
    assert not torch.equal(weights.flat()[0], module.spec.initial(0))
    with pytest.raises(UsageError, match="zoo_folder"):
        _ = data(model, tasks).zoo


def zoo_on_disk(tmp_path, model, tasks, **options):
    folder = tmp_path / "zoo"
    recipe = {"recipe": "AdapterZoo", "name": "tiny", "model": model, "tasks": str(tasks)}
    recipe |= {"method": SMALL["method"], "steps": 2, "samples": 2, "options": options}
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump(recipe))
    line = ["zoo", "build", "-c", str(tmp_path / "zoo.yaml"), "--out", str(folder), "--workers=1"]
    assert cli.main(line) == 0
    return str(folder)


def test_a_zoo_is_read_if_it_fits(model, tasks, tmp_path):
    folder = zoo_on_disk(tmp_path, model, tasks)
    module = data(model, tasks, zoo_folder=folder)
    weights, numbers = module.zoo
    assert numbers.tolist() == module.suite.task_splits["train"]
    assert [r.split("-")[0] for r in weights.provenance.get("runs", [])] in (
        [],
        [module.suite.names[t] for t in numbers.tolist()],
    )
    with pytest.raises(UsageError, match=r"options\.prompt"):
        _ = data(model, tasks, zoo_folder=folder, prompt={"description": True}).zoo
    with pytest.raises(UsageError, match="holds adapters for"):
        _ = data(model, tasks, zoo_folder=folder, method={**SMALL["method"], "r": 3}).zoo
    changed = json.loads((tasks / "kinds.json").read_text())
    changed["Definition"][0] += " ?"
    (tasks / "kinds.json").write_text(json.dumps(changed))
    options = {"heldout_families": ["last"], "val_families": ["more"]}
    with pytest.raises(UsageError, match="another version of the task 'kinds'"):
        _ = data(model, tasks, zoo_folder=folder, **options).zoo


def test_a_run_names_its_tasks_and_notices_changes(model, tasks, tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERGEN_DATA", str(tasks.parent))
    module = LanguageDataModule(model, None, **SMALL, augment={"per_task": 1})
    run = tmp_path / "run"
    module.save(run)
    (tasks / "zzz.json").write_text(json.dumps(tiny.echo()))  # a further task changes nothing
    again = TaskSuite.load(run)
    assert again.names == module.suite.names
    assert again.task_splits == module.suite.task_splits
    assert again.descriptions == module.suite.descriptions
    moved = tmp_path / "moved"
    moved.mkdir()
    tasks.rename(moved / "tasks")
    with pytest.raises(RunError, match="not a folder of task files"):
        TaskSuite.load(run)
    monkeypatch.setenv("HYPERGEN_DATA", str(moved))
    assert TaskSuite.load(run).names == module.suite.names
    echo = json.loads((moved / "tasks" / "echo.json").read_text())
    echo["Instances"][0]["output"] = ["dog"]
    (moved / "tasks" / "echo.json").write_text(json.dumps(echo))
    with pytest.raises(RunError, match=r"'echo' in .* has changed"):
        TaskSuite.load(run)
    monkeypatch.delenv("HYPERGEN_DATA")
    with pytest.raises(UsageError, match="HYPERGEN_DATA"):
        TaskSuite.load(run)
    with pytest.raises(UsageError, match="HYPERGEN_DATA"):
        LanguageDataModule(model).build()


def test_the_recipe_trains_evaluates_and_generates(model, tasks, tmp_path, capfd):
    run, out = tmp_path / "run", tmp_path / "adapter"
    line = ["-c", str(CONFIGS / "text2lora_smollm2.yaml"), "--run", str(run)]
    line += [f"--data.model={model}", f"--data.tasks={tasks}", "--data.encoder=hashing"]
    line += ["--data.heldout_families=[kinds]", "--data.max_length=64", "--data.eval_samples=4"]
    line += ["--data.zoo_steps=1", "--data.multitask_steps=2", "--data.oracle_steps=1"]
    line += ["--trainer.max_steps=2", "--trainer.val_check_interval=1", "--trainer.accelerator=cpu"]
    line += ["--trainer.log_every_n_steps=1", "--data.wordings_per_task=2"]
    line += ["--model.objective={task: 1.0, consistency: 0.1}"]
    assert cli.main(["fit", *line]) == 0
    saved = (run / "baselines" / "multitask.safetensors").stat().st_mtime_ns
    assert cli.main(["fit", *line, "--trainer.max_steps=3", "--resume"]) == 0
    assert (run / "baselines" / "multitask.safetensors").stat().st_mtime_ns == saved
    assets = RunAssets.load(run)
    assert assets.zoo is not None
    assert assets.settings["chunk"] == 16
    capfd.readouterr()
    for further in ([], ["--tasks", str(tiny.all_tasks(tmp_path / "given"))]):
        assert cli.main(["evaluate", str(run), *further, "--json"]) == 0
        result = json.loads(capfd.readouterr().out)
        methods = {"base", "mean", "nearest", "shuffled", "multitask", "generated", "oracle"}
        assert set(result["splits"]["heldout_tasks"]) >= methods
    assert cli.main(["generate", str(run), "--text", "say it again", "--out", str(out)]) == 0
    assert (out / "adapter_model.safetensors").is_file()
    generator = hypergen.load(run)
    assert type(generator).__name__ == "SharedPlusDelta"


def test_skills_start_from_the_multi_task_adapter_and_are_compared_with_it(
    model, tasks, tmp_path, monkeypatch, capfd
):
    """The commands of `configs/skills_smollm2.yaml`, small."""
    monkeypatch.chdir(tmp_path)  # the recipe names the run of its start from here
    more = [f"--data.model={model}", f"--data.tasks={tasks}", "--data.encoder=hashing"]
    more += ["--data.heldout_families=[kinds]", "--data.max_length=64", "--data.eval_samples=4"]
    more += ["--trainer.max_steps=2", "--trainer.accelerator=cpu"]
    skills = ["-c", str(CONFIGS / "skills_smollm2.yaml")]
    other = ["--run", "runs/multitask3", "--model.generator", "MultiTask"]
    other += ["--model.generator.file", "runs/multitask2_smollm2"]
    for name in ("multitask_smollm2", "multitask2_smollm2"):
        assert cli.main(["fit", "-c", str(CONFIGS / f"{name}.yaml"), *more]) == 0
    assert cli.main(["fit", *skills, *more, *other]) == 0
    assert cli.main(["fit", *skills, *more, "--data.multitask", "runs/multitask3"]) == 0
    runs = ("multitask2_smollm2", "multitask3", "skills_smollm2")
    start, other, own = (hypergen.load(f"runs/{name}") for name in runs)
    assert type(own).__name__ == "LatentSkills"
    assert bool(own.clustered)
    begin = start.weights.detach()
    assert not torch.equal(other.weights, begin)
    # Two small steps: all of them are still near what they started from.
    assert float((own.skills.detach() - begin).norm(dim=1).max()) < 0.5 * float(begin.norm())
    capfd.readouterr()
    assert cli.main(["evaluate", "runs/skills_smollm2", "--no-oracle", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["splits"]["heldout_tasks"]
    assert {"multitask", "generated", "shuffled", "incontext", "base"} <= set(found)


def test_an_encoder_decoder_model_is_trained_by_its_own_suite(tasks, tmp_path):
    made = tiny.t5()
    made.model.save_pretrained(tmp_path / "t5")
    made.tokenizer.save_pretrained(tmp_path / "t5")
    method = {"r": 2, "target_modules": ["q", "v"]}
    prompt = {"description": True}
    module = data(str(tmp_path / "t5"), tasks, method=method, prompt=prompt, pack=None)
    assert type(module.suite).__name__ == "Seq2SeqSuite"
    module.needs = frozenset({"teacher_logits"})
    batch = next(iter(module.train_dataloader()))
    assert "decoder_input_ids" in batch["inputs"]
    torch.manual_seed(0)
    generator = TextToLoRA(module.spec, module.encoder, hidden=8, depth=1)
    loss = make_objective("distillation", module)(generator(batch["condition"]), batch)
    loss.backward()
    assert any(bool(p.grad.any()) for p in generator.parameters() if p.grad is not None)
    module.suite.save(tmp_path)
    assert type(TaskSuite.load(tmp_path)).__name__ == "Seq2SeqSuite"
