"""k demonstrations, to the generator, in the prompt and to training: the same for every row."""

from __future__ import annotations

import json

import pytest
import text_run
import torch
from text_run import options

from hypergen import cli
from hypergen.conditions import DemoEncoder, FusedEncoder, HashingEncoder
from hypergen.errors import UsageError
from hypergen.evaluation import Split, evaluate_few_shot
from hypergen.evaluation import few_shot as module
from hypergen.evaluation.command import evaluate_command
from hypergen.generators import TransformerGenerator
from hypergen.zoo.language import CausalSuite
from hypergen.zoo.language.few_shot import demonstrations

SPLITS = {"heldout_tasks": Split([1, 2, 3], "train", 2)}


def reader(spec, describe: bool = True) -> TransformerGenerator:
    """A generator of random weights that reads demonstrations."""
    torch.manual_seed(0)
    text = HashingEncoder(16)
    demos = DemoEncoder(text, 12)
    encoder = FusedEncoder({"text": text, "demos": demos}, 12) if describe else demos
    net = TransformerGenerator(spec, encoder, dim=8, depth=1, heads=2)
    for parameter in net.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    return net.eval()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    made = text_run.make(tmp_path_factory.mktemp("text"))
    made.generator = reader(made.spec)
    return made


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    return text_run.save(text, tmp_path_factory.mktemp("runs") / "demos")


@pytest.fixture(scope="module")
def calls(text):
    """What every row was given in one evaluation."""
    seen = {"encoded": [], "trained": [], "shown": []}
    patch = pytest.MonkeyPatch()
    encode, train, shots = text.generator.encode, module.train_weights, CausalSuite.in_context
    patch.setattr(
        text.generator, "encode", lambda **given: seen["encoded"].append(given) or encode(**given)
    )

    def spy(target, spec, suite, tasks, **more):
        seen["trained"].append([suite.tasks[int(t)].instances["train"] for t in tasks])
        return train(target, spec, suite, tasks, **more)

    def shown(suite, *args):
        seen["shown"].append([task.examples for task in suite.tasks])
        return shots(suite, *args)

    patch.setattr(module, "train_weights", spy)
    patch.setattr(CausalSuite, "in_context", shown)
    found = evaluate_few_shot(
        text.generator,
        text.target,
        text.suite,
        SPLITS,
        (0, 1, 3),
        zoo=text.zoo,
        multitask=text.weights(2),
        lora_steps=2,
        oracle_steps=1,
        oracle_options={"samples": 2},
        resamples=50,
        chunk=4,
    )
    patch.undo()
    return seen, found


def test_all_rows_get_the_same_demonstrations(text, calls):
    seen, _ = calls
    wanted = {}
    for k in (0, 1, 3):
        wanted[k] = [
            [(row.input, row.outputs[0]) for row in demonstrations(text.suite.tasks[t], k, draw)]
            for t in (1, 2, 3)
            for draw in range(2)
        ]
    given = [call["demos"] for call in seen["encoded"]]
    assert given == [wanted[0], wanted[1], wanted[3]]
    assert all(call["text"] == seen["encoded"][0]["text"] for call in seen["encoded"])

    def pairs(rows):
        return [[(row.input, row.outputs[0]) for row in own] for own in rows]

    assert [pairs(rows) for rows in seen["shown"]] == [wanted[1], wanted[3]]
    for k in (1, 3):
        trained = [own for rows in seen["trained"] for own in pairs(rows) if len(own) == k]
        assert sorted(trained) == sorted(wanted[k])
    # Other draws for other descriptions; fewer among more.
    assert wanted[3][0] != wanted[3][1]
    assert all(one == more[:1] for one, more in zip(wanted[1], wanted[3], strict=True))


def test_what_is_scored_is_never_shown(text, calls):
    seen, _ = calls
    for call in seen["encoded"]:
        for i, demos in enumerate(call["demos"]):
            scored = {row.input for row in text.suite.tasks[1 + i // 2].instances["test"]}
            assert not scored & {given for given, _ in demos}


def test_the_rows_and_their_intervals(calls):
    _, found = calls
    split = json.loads(json.dumps(found.to_dict()))["splits"]["heldout_tasks"]
    fixed = {"base", "mean", "multitask", "oracle"}
    of_k = {"generated", "shuffled", "generated_plain"}
    assert split["n"] == 3
    assert set(split["k"]) == {"0", "1", "3"}
    for k, rows in split["k"].items():
        methods = fixed | of_k | (set() if k == "0" else {"incontext", "lora"})
        assert methods == set(rows) - {"ci95", "generated_minus", "demonstrations", "shown"}
        for method in methods:
            low, high = rows["ci95"][method]
            assert low - 1e-9 <= rows[method] <= high + 1e-9
        assert rows["demonstrations"] == float(k)
        for method, difference in rows["generated_minus"].items():
            assert difference["difference"] == pytest.approx(rows["generated"] - rows[method])
    assert len({split["k"][k]["base"] for k in split["k"]}) == 1
    one = found.splits["heldout_tasks"]
    assert one.rows[1]["generated"].counts.tolist() == [2, 2, 2]
    assert set(found.to_dict()["tasks"]) == set(one.names)


def test_scores_are_those_of_a_loop(text, calls):
    _, found = calls
    own = found.splits["heldout_tasks"]
    suite = text.suite
    for k in (0, 3):
        at = 0
        for t in (1, 2, 3):
            for draw in range(2):
                demos = demonstrations(suite.tasks[t], k, draw)
                weights = text.generator.generate(
                    suite.tasks[t].descriptions[draw],
                    demos=[(row.input, row.outputs[0]) for row in demos],
                )
                task, word = torch.tensor([t]), torch.tensor([draw])
                score = suite.score(text.target, weights, task, "test", word)
                found_ = own.rows[k]["generated"].values[at]
                assert float(found_) == pytest.approx(float(score))
                at += 1


def test_the_table_and_the_plot(calls, tmp_path):
    _, found = calls
    lines = found.to_table().splitlines()
    assert lines[0] == "heldout_tasks: 3 tasks, 95% CI over tasks"
    assert lines[1].split() == ["method", "k", "=", "0", "k", "=", "1", "k", "=", "3"]
    lora = next(line for line in lines if line.startswith("trained on the demonstrations"))
    assert lora.removeprefix("trained on the demonstrations").split()[0] == "-"  # none with k = 0
    paths = found.save(tmp_path)
    assert [p.name for p in paths] == ["few_shot.json", "few_shot_heldout_tasks.png"]
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert json.loads(paths[0].read_text())["settings"]["k"] == [0, 1, 3]
    assert found.splits["heldout_tasks"].plot() == paths[1].read_bytes()


def test_the_command(run, tmp_path, capsys):
    words = ["evaluate", str(run), "--k", "0", "2", "--lora-steps", "1", "--no-oracle"]
    words += ["--descriptions", "1", "--samples", "2", "--report", str(tmp_path / "report")]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "demonstrations in the prompt" in out
    assert "trained on the task" not in out
    assert (tmp_path / "report" / "few_shot.json").is_file()
    found = evaluate_command(options(run, k=[2], lora_steps=0, no_oracle=True, descriptions=1))
    (split,) = found["splits"].values()
    assert "lora" not in split["k"]["2"]
    assert "generated" in split["k"]["2"]


def test_a_generator_of_demonstrations_alone(text):
    generator = reader(text.spec, describe=False)
    found = evaluate_few_shot(
        generator, text.target, text.suite, SPLITS, (0, 2), lora_steps=0, resamples=20
    )
    assert found.settings["k"] == [2]
    with pytest.raises(UsageError, match="reads demonstrations alone"):
        evaluate_few_shot(generator, text.target, text.suite, SPLITS, (0,))


def test_what_cannot_be_evaluated_is_told(text, run):
    plain = text_run.MLPGenerator(text.spec, HashingEncoder(8), hidden=8, depth=1)
    with pytest.raises(UsageError, match="conditioned on demonstrations; this one reads text"):
        evaluate_few_shot(plain, text.target, text.suite, SPLITS)
    with pytest.raises(UsageError, match="--k is for text tasks"):
        evaluate_few_shot(text.generator, text.target, object(), SPLITS)
