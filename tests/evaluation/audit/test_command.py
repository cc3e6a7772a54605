"""`hypergen audit` and `hypergen evaluate` on runs, and on weights from anywhere."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from safetensors.torch import save_file

from hypergen.cli import main
from hypergen.conditions import HashingEncoder, NoCondition
from hypergen.errors import RunError, RunNotFoundError, UsageError, WeightsError
from hypergen.evaluation.audit import sources
from hypergen.evaluation.audit.command import add_options, audit_command
from hypergen.evaluation.audit.sampling import draw, first_checkpoints
from hypergen.evaluation.audit.sources import Options, audit_file
from hypergen.generators import DiffusionGenerator, NearestExpert
from hypergen.specs import Weights
from hypergen.zoo import build_zoo, split
from hypergen.zoo.build import NetworkZoo
from hypergen.zoo.ensemble import Classification, Digits
from hypergen.zoo.networks import MLP
from hypergen.zoo.reading.record import ZooRecord


def audited(*words):
    """The JSON object of the command."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    args = parser.parse_args([str(word) for word in words])
    args.json = "-"
    return audit_command(args)


def save_run(folder, generator, kind, splits, **settings):
    generator.save_pretrained(folder / "generator")
    ZooRecord(kind, splits, {"canonical": False, **settings}).save(folder)
    return folder


@pytest.fixture(scope="module")
def memoriser(digits, tmp_path_factory):
    """A run of the perfect memoriser, without a condition."""
    splits = split(digits.zoo, "run", {"train": 0.6, "val": 0.2, "test": 0.2}, 0)
    flat = splits["train"].flat()
    made = DiffusionGenerator(
        digits.zoo.spec,
        NoCondition(),
        codec={"name": "TokenCodec", "size": 64},
        denoiser={"name": "MLPDenoiser", "hidden": 8},
        process={"name": "FlowMatching", "steps": 12},
        whiten="global",
    )
    made.prepare(argparse.Namespace(training_weights=lambda: flat))
    return save_run(tmp_path_factory.mktemp("runs") / "m", made.memoriser(flat), "none", splits)


@pytest.fixture(scope="module")
def subsets(tmp_path_factory):
    """A zoo of sets of digits, cut by task."""
    recipe = NetworkZoo(
        "sets",
        MLP(64, (6,), 2),
        Classification(Digits(), "subsets", n_tasks=60),
        runs=60,
        steps=60,
        lr=1e-2,
        shared_start=True,
    )
    zoo = build_zoo(recipe, tmp_path_factory.mktemp("subsets") / "zoo", workers=1)
    return split(zoo, "task", {"train": 0.6, "val": 0.2, "test": 0.2}, 0)


@pytest.fixture(scope="module")
def nearest(subsets, tmp_path_factory):
    """A run that gives the training network of the most similar description."""
    train = subsets["train"]
    texts = [list(train.tasks[row.task].descriptions) for row in train.rows]
    made = NearestExpert.from_weights(train.weights(), texts, HashingEncoder())
    return save_run(tmp_path_factory.mktemp("runs") / "n", made, "text", subsets)


# -- runs --------------------------------------------------------------------------------------


def test_a_run_of_the_memoriser_is_found_out(memoriser, tmp_path, capsys):
    assert main(["audit", str(memoriser), "--samples", "24", "--report", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "verdict: these are copies: " in out
    assert "autoencoder of a checkpoint" in out
    assert f"report: {tmp_path / 'report.html'}" in out
    assert json.loads((tmp_path / "audit.json").read_text())["verdict"]["kind"] == "copies"
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {"accuracy_against_novelty.png", "distances.png", "overlaps.png"}
    page = (tmp_path / "report.html").read_text()
    assert "these are copies" in page
    assert page.count("data:image/png;base64,") == 3


def test_evaluate_says_it_too(memoriser, capsys):
    assert main(["evaluate", str(memoriser)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["accuracy", "mean", "median", "best", "worst", "networks"]
    assert [line.split("  ")[0] for line in lines[2:5]] == [
        "samples",
        "training zoo",
        "held-out networks",
    ]
    assert lines[-1].startswith("verdict: these are copies")
    with pytest.raises(UsageError, match="hypergen audit has a --report"):
        evaluate_with_report(memoriser)


def evaluate_with_report(run):
    from hypergen.evaluation.command import evaluate_command

    evaluate_command(argparse.Namespace(run=str(run), split="test", report="x", json="-"))


def test_a_conditional_run_is_asked_for_held_out_tasks(nearest, subsets):
    told = audited(nearest, "--samples", 40)
    assert told["verdict"]["kind"] == "copies"
    quality = told["quality"]
    assert quality["samples"]["mean"] < quality["heldout"]["mean"]
    assert quality["shuffled"]["mean"] < quality["samples"]["mean"]
    assert "dropped" not in quality
    assert told["points"]["nearest"]["novelty"]["plain"] == pytest.approx(0, abs=1e-5)
    assert told["settings"]["condition"] == "heldout"
    trained = audited(nearest, "--samples", 40, "--condition", "train")
    assert trained["quality"]["samples"]["mean"] > quality["samples"]["mean"]


def test_samples_are_for_the_tasks_that_they_say(nearest, subsets):
    from hypergen.generators import load

    record, generator = ZooRecord.load(nearest), load(nearest)
    drawn = draw(generator, record, 30)
    held = {row.task for name in ("val", "test") for row in subsets[name].rows}
    assert set(drawn.tasks) == held  # one wording of each before a second one of any
    assert len(drawn.flat) == 30
    assert drawn.similarity.shape == (30, len(subsets["train"]))
    trained = draw(generator, record, 20, condition="train")
    names = [row.task for row in subsets["train"].rows]
    assert [names[i] for i in trained.similarity.argmax(1).tolist()] == trained.tasks
    assert torch.equal(trained.flat, subsets["train"].flat([names.index(t) for t in trained.tasks]))
    assert not torch.equal(drawn.controls["shuffled"], drawn.flat)
    one = draw(generator, record, 10, condition=drawn.tasks[0])
    assert set(one.tasks) == {drawn.tasks[0]}
    assert len(one.flat) <= 6  # the wordings: the generator draws nothing
    assert one.controls == {}
    with pytest.raises(UsageError, match=r"no condition 'heldot'.*Did you mean 'heldout'"):
        draw(generator, record, 10, condition="heldot")
    with pytest.raises(UsageError, match="conditions of the kind 'tasks'"):
        draw(generator, ZooRecord("tasks", record.splits), 10)


def test_a_dropped_condition_is_a_control(subsets):
    made = DiffusionGenerator(
        subsets["train"].spec,
        HashingEncoder(),
        codec={"name": "TokenCodec", "size": 64},
        denoiser={"name": "MLPDenoiser", "hidden": 8},
        process={"name": "FlowMatching", "steps": 2},
        condition_dropout=0.2,
    )
    flat = subsets["train"].flat()
    made.prepare(argparse.Namespace(training_weights=lambda: flat))
    for parameter in made.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    drawn = draw(made, ZooRecord("text", subsets, {}), 30)
    assert set(drawn.controls) == {"shuffled", "dropped"}
    assert len(drawn.groups.unique()) == len({*drawn.tasks})
    for flat in drawn.controls.values():
        assert flat.shape == drawn.flat.shape
        assert not torch.equal(flat, drawn.flat)


def test_first_checkpoints_are_the_earliest(tmp_path):
    recipe = NetworkZoo(
        "steps",
        MLP(64, (4,), 10),
        Classification(Digits()),
        runs=3,
        steps=4,
        save_steps=(1, 4),
    )
    zoo = build_zoo(recipe, tmp_path / "zoo", workers=1)
    found = first_checkpoints(zoo[[1, 0, 3, 2, 5, 4]])
    assert sorted((row.run, row.step) for row in found.rows) == [
        (f"run-{i:06d}", 1) for i in range(3)
    ]


def test_a_run_without_a_zoo_is_told(tmp_path, digits, memoriser):
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match="does not say which zoo it was trained on"):
        audited(tmp_path / "run")
    with pytest.raises(RunNotFoundError, match="does not exist"):
        audited(tmp_path / "nowhere")
    with pytest.raises(RunNotFoundError, match="is gone"):
        audited(memoriser, "--zoo", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="--heldout belongs to --weights"):
        audited(memoriser, "--heldout", digits.zoo.folder)
    with pytest.raises(UsageError, match="--batch-norm is train or stored"):
        audited(memoriser, "--batch-norm", "test")


# -- weights from anywhere ---------------------------------------------------------------------


def test_weights_of_other_methods_are_audited(digits, tmp_path):
    """A plain safetensors file of one tensor a slot: here held-out networks, which are new."""
    views = split(digits.zoo, "run", {"train": 0.8, "val": 0.1, "test": 0.1}, 0)
    path = tmp_path / "theirs.safetensors"
    save_file(
        {
            k: v.contiguous()
            for k, v in digits.zoo.spec.from_flat(views["test"].flat()).named().items()
        },
        path,
    )
    told = audited("--weights", path, "--zoo", digits.zoo.folder)
    assert told["verdict"]["kind"] == "new"
    assert told["counts"]["training"] == len(views["train"])
    views["train"].weights([*range(20)]).save(path)
    assert audited("--weights", path, "--zoo", digits.zoo.folder)["verdict"]["kind"] == "copies"


def test_a_second_zoo_is_the_held_out_one(digits, subsets, tmp_path):
    path = tmp_path / "w.safetensors"
    digits.zoo.weights([*range(20)]).save(path)
    other = NetworkZoo(
        "other", MLP(64, (8,), 10), Classification(Digits()), runs=8, steps=40, seed=9, lr=1e-2
    )
    build_zoo(other, tmp_path / "zoo", workers=1)
    words = ("--weights", path, "--zoo", digits.zoo.folder, "--heldout")
    told = audited(*words, tmp_path / "zoo")
    assert told["counts"] | {"samples": 0} == {
        "samples": 0,
        "training": 128,
        "training_runs": 128,
        "training_of": 128,
        "heldout": 8,
        "heldout_runs": 8,
    }
    with pytest.raises(WeightsError, match=r"slot '\d\.\w+' has the shape"):
        audited(*words, subsets["train"].folder)


def test_tasks_of_a_file_are_those_that_it_is_scored_on(subsets, tmp_path):
    test = subsets["test"]
    weights = test.weights()
    weights.provenance = {"tasks": [row.task for row in test.rows]}
    weights.save(tmp_path / "w.safetensors")
    zoo = subsets["train"][:]
    given = audit_file(
        tmp_path / "w.safetensors", zoo, subsets["val"], options=Options(resamples=20, baselines=4)
    )
    expected = test.metric("test", "accuracy")
    torch.testing.assert_close(
        given.quality["samples"].double(), torch.from_numpy(expected), atol=1e-5, rtol=0
    )


def test_samples_of_one_task_are_resampled_together(subsets, tmp_path, monkeypatch):
    weights = subsets["test"].weights()
    names = [row.task for row in subsets["test"].rows]
    weights.provenance = {"tasks": names}
    weights.save(tmp_path / "w.safetensors")
    seen = []
    monkeypatch.setattr(sources, "audit_samples", lambda drawn, *args, **more: seen.append(drawn))
    audit_file(tmp_path / "w.safetensors", subsets["train"][:], subsets["val"])
    groups = seen[0].groups
    same = torch.tensor([[a == b for b in names] for a in names])
    assert torch.equal(groups[:, None] == groups[None], same)


def test_weights_that_are_not_of_the_zoo_name_the_slot(digits, subsets, tmp_path):
    zoo = digits.zoo.folder
    path = tmp_path / "w.safetensors"
    subsets["train"].weights().save(path)
    with pytest.raises(WeightsError, match=r"slot '0.(weight|bias)' has the shape"):
        audited("--weights", path, "--zoo", zoo)
    named = {k: v.contiguous() for k, v in digits.zoo.weights().named().items()}
    save_file({k: v for k, v in named.items() if k != "2.bias"}, path)
    with pytest.raises(WeightsError, match=r"networks of the zoo: slot '2.bias' is missing"):
        audited("--weights", path, "--zoo", zoo)
    save_file({k: v[0].contiguous() for k, v in named.items()}, path)
    with pytest.raises(WeightsError, match="holds one network"):
        audited("--weights", path, "--zoo", zoo)
    path.write_text("no tensors")
    with pytest.raises(RunError):
        audited("--weights", path, "--zoo", zoo)
    other = MLP(64, (8,), 10, norm="layer").spec()
    Weights(other, [torch.zeros(9, len(g), *g.shape) for g in other.groups]).save(path)
    with pytest.raises(WeightsError, match=r"the slot '\d\..*', which the zoo has not"):
        audited("--weights", path, "--zoo", zoo)


def test_options_that_do_not_go_together_are_told(digits, tmp_path):
    with pytest.raises(UsageError, match="give a run folder, or --weights"):
        audited()
    with pytest.raises(UsageError, match="give a run folder, or --weights"):
        audited("run", "--weights", "file")
    with pytest.raises(UsageError, match="--weights needs --zoo"):
        audited("--weights", "file")
    words = ("--weights", "file", "--zoo", digits.zoo.folder)
    with pytest.raises(UsageError, match="--split-by is run, task or family"):
        audited(*words, "--split-by", "checkpoint")
    with pytest.raises(UsageError, match="--step is last, all or a number"):
        audited(*words, "--step", "first")
    with pytest.raises(UsageError, match="no checkpoint at step 7"):
        audited(*words, "--step", "7")
