"""Text tasks on a tiny language model: what the network is shown, by every method."""

from __future__ import annotations

import json

import pytest
import text_run
import torch
from text_run import options, tiny

from hypergen.conditions import HashingEncoder
from hypergen.evaluation import Split, evaluate, write_report
from hypergen.evaluation.command import evaluate_command
from hypergen.evaluation.methods import Asked
from hypergen.generators import MLPGenerator
from hypergen.zoo.language import CausalSuite
from hypergen.zoo.language.variants import InContext, WithoutDescription

PLAIN = {"base_plain", "multitask_plain", "generated_plain"}
METHODS = {"base", "incontext", "mean", "nearest", "shuffled", "multitask", "generated", "oracle"}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return text_run.make(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    return text_run.save(text, tmp_path_factory.mktemp("runs") / "text")


@pytest.fixture(scope="module")
def calls(text):
    """Everything that is scored in one evaluation: where, weights, tasks and wordings."""
    seen = []
    measured = CausalSuite.metrics

    def spy(self, target, weights, tasks, split, wordings=None):
        flat = weights.flat() if type(target).__name__ == "LoRATarget" else None
        seen.append((type(self), flat, tasks, wordings))
        return measured(self, target, weights, tasks, split, wordings)

    patch = pytest.MonkeyPatch()
    patch.setattr(CausalSuite, "metrics", spy)
    split = {"heldout_tasks": Split([1, 2, 3], "train", 3)}
    assets = text.assets
    found = evaluate(
        text.generator,
        text.target,
        text.suite,
        split,
        zoo=assets.zoo,
        multitask=assets.multitask,
        multitask_plain=assets.multitask_plain,
        resamples=50,
        **assets.settings,
    )
    patch.undo()
    return seen, found


def test_every_method_is_shown_every_description(text, calls):
    seen, found = calls
    split = found.splits["heldout_tasks"]
    assert set(split.scores) == METHODS | PLAIN
    pairs = {
        (t, w) for t in (1, 2, 3) for w in range(min(3, len(text.suite.tasks[t].descriptions)))
    }
    assert len(pairs) == 7
    for method in METHODS:
        assert split.scores[method].counts.tolist() == [3, 2, 2], method
    for method in ("base_plain", "multitask_plain"):  # nothing depends on the description
        assert split.scores[method].counts.tolist() == [1, 1, 1]
    assert split.scores["generated_plain"].counts.tolist() == [3, 2, 2]
    for kind, method in ((CausalSuite, "base"), (InContext, "incontext")):
        base = [(t, w) for k, f, t, w in seen if f is None and k is kind]
        asked = [p for t, w in base for p in zip(t.tolist(), w.tolist(), strict=True)]
        assert sorted(asked) == sorted(pairs), method
    assert all(w is None for k, _, _, w in seen if k is WithoutDescription)


def test_generator_and_prompt_read_one_sentence_and_shuffled_only_the_generator_another(
    text, calls
):
    seen, _ = calls
    suite = text.suite
    texts = [(t, w) for t in (1, 2, 3) for w in range(min(3, len(suite.tasks[t].descriptions)))]
    sentences = [suite.tasks[t].descriptions[w] for t, w in texts]
    rows = text.generator.generate(sentences).flat()

    def of(flat):
        return [texts[int((rows - one).abs().sum(1).argmin())] for one in flat]

    own, other = set(), set()
    for kind, flat, tasks, wordings in seen:
        if kind is not CausalSuite or flat is None:
            continue
        near = torch.stack([(rows - one).abs().amax(1).amin() for one in flat]) < 1e-5
        if not bool(near.all()):
            continue  # the zoo, oracles, the multi-task adapter
        pairs = zip(tasks.tolist(), wordings.tolist(), strict=True)
        for read, shown in zip(of(flat), pairs, strict=True):
            (own if read[0] == shown[0] else other).add((read, shown))
    assert own == {(pair, pair) for pair in texts}
    assert {shown for _, shown in other} == set(texts)  # every right prompt, once
    assert len(other) == len(texts)
    keys = {t: suite.key(t) for t, _ in texts}
    assert all(keys[read[0]] != keys[shown[0]] for read, shown in other)


def test_shuffled_pairs_keep_the_right_prompt():
    unit = torch.tensor([0, 0, 0, 1, 2, 2])
    shown = torch.tensor([5, 6, 7, 0, 1, 2])
    partner = torch.tensor([1, 2, 0])  # weights read about 0 are tried on 1, and so on
    asked = Asked(torch.tensor([10, 11, 12]), unit, shown, partner, True)
    reader, scored, words = asked.shuffled()
    assert scored.tolist() == unit.tolist()
    assert words.tolist() == shown.tolist()
    assert unit[reader].tolist() == [2, 2, 2, 0, 1, 1]
    assert reader.tolist() == [4, 5, 4, 0, 3, 3]
    lone = Asked(torch.tensor([10, 11, 12]), unit, shown, torch.tensor([1, 0, -1]), True)
    assert lone.shuffled()[1].tolist() == [0, 0, 0, 1]
    without = Asked(torch.tensor([10, 11, 12]), unit, shown, partner, False)
    reader, scored, _ = without.shuffled()
    assert reader.tolist() == list(range(6))
    assert scored.tolist() == partner[unit].tolist()


def test_the_json_has_metrics_of_every_method(calls):
    _, found = calls
    split = json.loads(json.dumps(found.to_dict()))["splits"]["heldout_tasks"]
    assert METHODS | PLAIN | {"n", "ci95", "metrics"} <= set(split)
    assert set(split["metrics"]) == METHODS | PLAIN
    for values in split["metrics"].values():
        assert set(values) == {"exact", "rank", "rouge_l"}
        assert all(0 <= v <= 1 for v in values.values())
    # Labels in two files: ranked; the third is an exact match.
    assert set(found.details()["splits"]["heldout_tasks"]["generated_minus"]) == (
        METHODS | PLAIN
    ) - {"generated"}


def test_the_table_has_a_row_for_each_method_and_notes_for_each_baseline(calls):
    _, found = calls
    lines = found.to_table().splitlines()
    assert lines[0] == "heldout_tasks: 3 tasks, 7 descriptions"
    assert "ROUGE-L" in lines[1]
    assert "exact match" in lines[1]
    rows = [line.split("  ")[0] for line in lines[3:14]]
    assert rows[0] == "unchanged base"
    assert "unchanged base with demonstrations" in rows
    assert "generated, no description shown" in rows
    assert any("spread over descriptions" in line for line in lines)
    notes = found.notes()
    assert any("unchanged base with demonstrations" in note for note in notes)
    assert not any("trained on the task" in n or "the generated, no" in n for n in notes)


def test_a_run_is_evaluated_on_a_folder_in_the_layout_of_the_real_repository(run, tmp_path, capsys):
    long = {**tiny.echo(), "Definition": ["say the word again " * 200]}
    folder = tiny.write_tasks(
        tmp_path / "tasks",
        one={**tiny.echo(), "Definition": "pick one ."},
        single={**tiny.echo(), "Instances": [tiny.instance("cat", "cat")]},
        beyond=long,
    )
    (folder / "bad.json").write_text('{"Definition": ["x"], "Instances": [{"input": "a"}]}')
    args = options(run, tasks=str(folder), descriptions=2, samples=2, shots=0, no_oracle=True)
    found = evaluate_command(args)
    assert set(found["splits"]) == {"heldout_tasks"} or set(found["splits"]) == {"heldout_wordings"}
    (split,) = found["splits"].values()
    assert split["n"] == 1
    assert set(found["tasks"]) == {"one"}
    assert "oracle" not in split
    assert "incontext" not in split
    assert set(split) >= PLAIN
    said = " ".join(found["skipped"])
    assert "bad.json: field 'Instances[0].output' is missing" in said
    assert "'single' has no samples in the split 'test'" in said
    assert "'beyond'" in said
    assert "hypergen: left out: " in capsys.readouterr().err
    assert found["tasks"]["one"]["base"] in (0.0, 0.5, 1.0)  # two samples


def test_the_rows_of_a_run_without_the_further_baselines(run, text):
    (run / "baselines" / "multitask_plain.safetensors").rename(run / "plain.off")
    try:
        found = evaluate_command(options(run, oracle_steps=1))
    finally:
        (run / "plain.off").rename(run / "baselines" / "multitask_plain.safetensors")
    (split,) = found["splits"].values()
    assert "multitask_plain" not in split
    assert {"base_plain", "generated_plain", "oracle", "incontext"} <= set(split)


def test_tasks_that_only_have_tests_have_no_oracle(text):
    suite, target = text.suite, text.target
    only = {k: v for k, v in suite.tasks[1].instances.items() if k == "test"}
    task = type(suite.tasks[1])(**{**vars_of(suite.tasks[1]), "instances": only})
    tasks = (suite.tasks[0], task, *suite.tasks[2:])
    bare = CausalSuite(
        suite.language_model, tasks, prompt={"description": True}, heldout_descriptions=0
    )
    split = {"a": Split([1, 2], "train", 1)}
    found = evaluate(
        text.generator, target, bare, split, oracle_steps=1, resamples=20, chunk=2,
        oracle_options={"samples": 1},
    )  # fmt: skip
    scores = found.splits["a"].scores["oracle"]
    assert scores.counts.tolist() == [0, 1]
    assert found.to_dict()["tasks"][suite.names[1]].keys() >= {"base", "generated"}
    assert "oracle" not in found.to_dict()["tasks"][suite.names[1]]


def vars_of(task):
    return {name: getattr(task, name) for name in task.__dataclass_fields__}


def test_descriptions_that_an_encoder_does_not_take_are_cut_for_it_alone(text):
    generator = MLPGenerator(text.spec, HashingEncoder(32, max_length=3), hidden=8, depth=1).eval()
    split = {"a": Split([1, 2], "train", 1)}
    found = evaluate(
        generator, text.target, text.suite, split, oracle_steps=0, resamples=20, shots=0
    )
    assert found.settings["descriptions_cut_for_the_encoder"] == {"a": 2}
    assert any("longer than the encoder takes" in note for note in found.notes())


def test_the_report_shows_every_method_and_every_task(calls, tmp_path):
    _, found = calls
    html = write_report(tmp_path, found).read_text()
    for label in ("unchanged base with demonstrations", "generated, no description shown"):
        assert html.count(f"<td>{label}</td>") == 2  # scores and metrics
        assert f"<td>minus {label}</td>" in html
    assert "<th>ROUGE-L</th>" in html
    split = found.splits["heldout_tasks"]
    assert f"<td>{split.metrics['base']['rouge_l']:.3f}</td>" in html
    assert (tmp_path / "plots" / "tasks_heldout_tasks.png").read_bytes().startswith(b"\x89PNG")
