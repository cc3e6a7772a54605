"""Stories: each method's numbers, what they are made of, and the command that prints them."""

from __future__ import annotations

import json
import math

import pytest
import tiny_documents as documents
import torch
from torch.nn import functional as F

from hypergen import cli
from hypergen._utils.io import dump_json
from hypergen.conditions import DocumentEncoder
from hypergen.errors import RunError, UsageError
from hypergen.evaluation import evaluate_stories, write_story_report
from hypergen.evaluation.stories import _parts
from hypergen.evaluation.stories_result import Counted, StoryEvaluation
from hypergen.evaluation.story_model import open_documents
from hypergen.generators import GenerativeAdapter, MLPGenerator
from hypergen.specs import LoRASpec, PrefixSpec
from hypergen.zoo.language.stories import read_stories

PLAIN = ("cat dog cow hen", "cup car pen box hat bed")


def perturbed(generator, scale=0.2):
    torch.manual_seed(0)
    for parameter in generator.parameters():
        parameter.data += scale * torch.randn(parameter.shape)
    return generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, stories, and runs of a LoRA and a prefix generator."""
    from hypergen._utils.language_models import load_language_model

    path = tmp_path_factory.mktemp("stories")
    model = documents.save_model(path / "model")
    documents.write_stories(path / "stories.jsonl", documents.stories(12))
    loaded = load_language_model(model)
    spec = LoRASpec(loaded.model, ["q_proj", "v_proj"], r=2)
    encoder = DocumentEncoder.from_model(
        loaded.model, loaded.tokenizer, spec.modules, chunk_size=8, name=model
    )
    lora = perturbed(GenerativeAdapter(spec, encoder, state_rank=4))
    lora.save_pretrained(path / "lora" / "generator")
    prefix = perturbed(
        MLPGenerator(PrefixSpec(loaded.model, 3), documents.HashedDocuments(16), hidden=8, depth=1)
    )
    prefix.save_pretrained(path / "prefix" / "generator")
    text = MLPGenerator(spec, documents.HashingEncoder(16), hidden=8, depth=1)
    text.save_pretrained(path / "text" / "generator")
    return path


def found(folder, run, most=None, **options):
    generator, target, loaded = open_documents(folder / run)
    stories = read_stories(folder / "stories.jsonl", "test")[:most]
    evaluation = evaluate_stories(
        generator, target, loaded, stories, plain=PLAIN, resamples=50, **options
    )
    return evaluation, generator, target, loaded, stories


def plainly(call, tokenizer, story, question):
    """Mean and summed log-likelihood of each option behind story and question."""
    out = []
    for option in question.options:
        parts = [tokenizer(t)["input_ids"] for t in (story, question.text, f" {option}")]
        ids = torch.tensor([[*parts[0], *parts[1], *parts[2]]])
        logits = call(ids)
        size = len(parts[2])
        logp = -F.cross_entropy(logits[0, -size - 1 : -1], ids[0, -size:], reduction="none")
        out.append((float(logp.mean()), float(logp.sum())))
    return torch.tensor(out).T


@pytest.mark.parametrize("run", ["lora", "prefix"])
def test_accuracies_are_those_of_each_text_alone(folder, run):
    evaluation, generator, target, loaded, stories = found(folder, run, 3, together=4)
    tokenizer = loaded.tokenizer

    def base(ids):
        return loaded.model(ids).logits

    calls = {}
    with torch.no_grad():
        for i, story in enumerate(stories):
            others = stories[i - 1]
            calls["none"] = (base, "")
            calls["in_prompt"] = (base, story.text)
            for name, source in (("adapter", story), ("shuffled", others)):
                weights = generator.generate(document=[source.text])

                def adapted(ids, weights=weights):
                    output = target(weights, {"input_ids": ids})
                    return getattr(output, "logits", output)

                calls[name] = (adapted, "")
            for name, (call, shown) in calls.items():
                for which, row in (("mean", 0), ("sum", 1)):
                    hits = sum(
                        int(plainly(call, tokenizer, shown, q)[row].argmax()) == q.answer
                        for q in story.questions
                    )
                    assert int(evaluation.accuracy[which][name].total[i]) == hits, (name, i)
    stated = evaluation.to_dict()
    assert (stated["stories"], stated["questions"]) == (3, 12)
    for method, cell in stated["accuracy"]["mean"].items():
        if method in ("none", "in_prompt", "adapter", "shuffled"):
            low, high = cell["ci95"]
            assert 0 <= low <= cell["value"] <= high <= 1


def test_perplexities_are_of_the_second_half_and_of_plain_text(folder):
    evaluation, generator, target, loaded, stories = found(folder, "lora", together=4)
    tokenizer = loaded.tokenizer

    def loss(call, ids, predicted):
        logits = call(torch.tensor([ids]))[0, -predicted - 1 : -1]
        return float(F.cross_entropy(logits, torch.tensor(ids[-predicted:]), reduction="sum"))

    def base(ids):
        return loaded.model(ids).logits

    with torch.no_grad():
        for i, story in enumerate(stories):
            ids = tokenizer(story.text)["input_ids"]
            half, rest = ids[: len(ids) // 2], ids[len(ids) // 2 :]
            weights = generator.generate(document=[tokenizer.decode(half)])

            def adapted(ids, weights=weights):
                return target(weights, {"input_ids": ids}).logits

            found_ = {m: c.total[i] for m, c in evaluation.perplexity["continuation"].items()}
            expected = {
                "none": loss(base, [half[-1], *rest], len(rest)),
                "in_prompt": loss(base, ids, len(rest)),
                "adapter": loss(adapted, [half[-1], *rest], len(rest)),
            }
            for method, value in expected.items():
                assert float(found_[method]) == pytest.approx(value, rel=1e-4)
            plain = tokenizer(PLAIN[i % 2])["input_ids"]
            whole = generator.generate(document=[story.text])
            got = evaluation.perplexity["plain"]
            value = loss(
                lambda x, w=whole: target(w, {"input_ids": x}).logits, plain, len(plain) - 1
            )
            assert float(got["adapter"].total[i]) == pytest.approx(value, rel=1e-4)
            assert float(got["none"].total[i]) == pytest.approx(
                loss(base, plain, len(plain) - 1), rel=1e-4
            )


def test_weights_are_generated_once_for_each_story(folder):
    generator, target, loaded = open_documents(folder / "lora")
    stories = read_stories(folder / "stories.jsonl")
    made = []
    generate = generator.generate
    generator.generate = lambda **kw: made.extend(kw["document"]) or generate(**kw)
    evaluate_stories(generator, target, loaded, stories, plain=PLAIN, resamples=10)
    assert len(made) == 2 * len(stories)  # and once for its first half
    assert {story.text for story in stories} <= set(made)


def test_the_encoder_reads_with_the_targets_model(folder):
    generator, target, _ = open_documents(folder / "lora")
    own = {p.data_ptr() for p in target.model.parameters()}
    assert own == {p.data_ptr() for p in generator.encoder._base().model.parameters()}


@pytest.mark.parametrize("count", [1, 2, 5, 8, 9, 17])
def test_every_story_has_another_beside_it(count):
    parts = list(_parts(count, 4))
    assert [i for part in parts for i in part] == list(range(count))
    assert count == 1 or min(map(len, parts)) >= 2


def stated(none, prompt, adapter):
    """An evaluation of stories with four questions, of which so many are right."""
    rows = {"none": none, "in_prompt": prompt, "adapter": adapter, "shuffled": none}
    right = {m: Counted.of([(float(r), 4.0) for r in row]) for m, row in rows.items()}
    loss = {m: Counted.of([(2.0, 1.0)] * len(none)) for m in rows}
    names = [f"s{i}" for i in range(len(none))]
    return StoryEvaluation(
        {"mean": right, "sum": right}, {"continuation": loss, "plain": loss}, names
    )


def test_the_share_of_the_prompts_gain():
    cell = stated([1] * 8, [3] * 8, [2] * 8).to_dict()["accuracy"]["mean"]["share_of_prompt_gain"]
    assert cell == {"value": 0.5, "ci95": [0.5, 0.5]}
    evaluation = stated([1, 0, 1, 2] * 5, [4, 3, 2, 4] * 5, [1, 3, 0, 4] * 5)
    found_ = evaluation.to_dict()
    cell = found_["accuracy"]["mean"]["share_of_prompt_gain"]
    assert cell["value"] == pytest.approx((8 - 4) / (13 - 4))
    assert cell["ci95"][0] < cell["value"] < cell["ci95"][1]
    assert found_["perplexity"]["plain"]["adapter"]["value"] == pytest.approx(math.exp(2))
    none = stated([1] * 4, [1] * 4, [2] * 4)
    assert math.isnan(none.to_dict()["accuracy"]["mean"]["share_of_prompt_gain"]["value"])
    assert "undefined" in none.to_table()


def test_what_does_not_win_is_said():
    assert not stated([1] * 8, [3] * 8, [2] * 8).notes()
    equal = stated([1] * 8, [3] * 8, [1] * 8).notes()
    assert len(equal) == 2
    assert all("does not clearly beat" in note for note in equal)
    worse = stated([1] * 8, [3] * 8, [0] * 8)
    assert "is below no story" in worse.notes()[0]
    harmed = worse.perplexity["plain"] | {"adapter": Counted.of([(2.5, 1.0)] * 8)}
    notes = StoryEvaluation(
        worse.accuracy, {**worse.perplexity, "plain": harmed}, worse.names
    ).notes()
    assert any("less likely" in note for note in notes)


def test_the_command_prints_numbers_and_writes_the_report(folder, tmp_path, capfd):
    line = ["evaluate", str(folder / "lora"), "--stories", str(folder / "stories.jsonl")]
    (tmp_path / "plain.txt").write_text("cat dog cow\n\nhat bed key")
    line += ["--report", str(tmp_path / "report"), "--plain", str(tmp_path / "plain.txt")]
    assert cli.main([*line, "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert printed["accuracy"] == metrics["accuracy"]
    assert set(metrics["per_story"]) == {f"s{i}" for i in (3, 4, 5, 9, 10, 11)}
    assert (tmp_path / "report" / "plots" / "stories.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "report" / "report.html").read_text()
    assert "story as generated adapter" in page
    assert "http" not in page.replace("hypergen", "")
    assert cli.main([*line[:4], "--split", "dev"]) == 0
    assert "2 stories, 8 questions" in capfd.readouterr().out


def test_the_same_twice(folder, tmp_path):
    first, second = (found(folder, "lora", 2)[0] for _ in range(2))
    for evaluation, name in ((first, "a"), (second, "b")):
        write_story_report(tmp_path / name, evaluation)
    pictures = [(tmp_path / n / "plots" / "stories.png").read_bytes() for n in "ab"]
    assert pictures[0] == pictures[1]
    a, b = (dump_json({**e.to_dict(), "seconds": 0}, "null") for e in (first, second))
    assert a == b


def test_a_wrong_input_is_one_line(folder, capfd):
    def fails(*words):
        assert cli.main(["evaluate", *map(str, words)]) == 2
        return capfd.readouterr().err

    stories = folder / "stories.jsonl"
    assert "not on documents" in fails(folder / "text", "--stories", stories)
    assert "none.jsonl does not exist" in fails(folder / "lora", "--stories", "none.jsonl")
    assert "split 'tst'" in fails(folder / "lora", "--stories", stories, "--split", "tst")
    assert "--shots is for suites" in fails(folder / "lora", "--stories", stories, "--shots", 2)


def test_a_run_that_names_no_model_is_refused(folder, tmp_path):
    (tmp_path / "generator").mkdir()
    (tmp_path / "generator" / "generator.json").write_text("{}")
    with pytest.raises(RunError, match=r"generator\.json is damaged"):
        open_documents(tmp_path)
    with pytest.raises(UsageError, match="at least one story"):
        evaluate_stories(*open_documents(folder / "lora"), [])
