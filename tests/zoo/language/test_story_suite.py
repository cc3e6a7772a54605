"""Stories as tasks: whose log-likelihoods count, and the loss at the answers' tokens."""

from __future__ import annotations

import pytest
import tiny_documents as documents
import tiny_language as tiny
import torch
from torch.nn import functional as F

from hypergen.errors import RunError, UsageError
from hypergen.specs import LoRASpec, PrefixSpec
from hypergen.targets import make_target
from hypergen.zoo import TaskSuite
from hypergen.zoo.base_call import BaseCall
from hypergen.zoo.language.stories import Question, Story
from hypergen.zoo.language.story_suite import StorySuite
from hypergen.zoo.language.tokens import IGNORED

WORDS = [*tiny.ANIMALS, *tiny.THINGS]


def story(i, questions=3, options=4):
    asked = tuple(
        Question(
            f"is it {WORDS[q]} ?",
            tuple(
                f"{WORDS[(i + q + 5 * o) % 16]} {'big ' * o}".strip() for o in range(options + q)
            ),
            (i + q) % 4,
        )
        for q in range(questions)
    )
    text = " ".join(WORDS[(i * 3 + k) % 16] for k in range(9 + i))
    return Story(f"s{i}", ("train", "dev", "test", "test")[i % 4], text, asked)


def suite(**options):
    stories = [story(i, 2 + i % 3) for i in range(6)]
    return StorySuite(tiny.causal("eager"), stories, **options)


def networks(made, spec, count, scale=0.3):
    torch.manual_seed(1)
    return make_target(made.network, spec), spec.from_flat(scale * torch.randn(count, spec.numel))


def plainly(model, question):
    """Mean log-likelihood of each option, one text after the other."""
    tokenizer, means = tiny.tokenizer(), []
    for option in question.options:
        head, tail = (tokenizer(t)["input_ids"] for t in (question.text, f" {option}"))
        logp = model(torch.tensor([[*head, *tail]])).log_softmax(-1)[0, len(head) - 1 : -1]
        means.append(float(logp.gather(1, torch.tensor(tail)[:, None]).mean()))
    return torch.tensor(means)


def test_splits_are_those_of_the_file():
    made = suite()
    assert made.task_splits == {"train": [0, 4], "val": [1, 5], "heldout_tasks": [2, 3]}
    assert made.descriptions["train"][2] == [made.stories[2].text]
    assert made.sizes == [2, 3, 4, 2, 3, 4]


@pytest.mark.parametrize("kind", ["lora", "prefix"])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_score_is_that_of_each_option_alone(kind, normalize):
    made = suite(pack=kind == "lora", normalize_length=normalize, eval_batch=2)
    lora = LoRASpec(made.network, ["q_proj", "v_proj"], r=2)
    spec = lora if kind == "lora" else PrefixSpec(made.network, 3)
    target, weights = networks(made, spec, 5)
    tasks = torch.tensor([0, 2, 3, 5, 1])
    with torch.no_grad():
        found = made.score(target, weights, tasks)
        for task, own, score in zip(tasks.tolist(), weights, found, strict=True):
            right = []
            for question in made.stories[task].questions:

                def call(ids, own=own):
                    out = target(own, {"input_ids": ids})
                    return getattr(out, "logits", out)

                means = plainly(call, question)
                lengths = torch.tensor([len(o.split()) for o in question.options])
                scores = means if normalize else means * lengths
                right.append(int(scores.argmax()) == question.answer)
            assert float(score) == pytest.approx(sum(right) / len(right))
    assert 0 < float(found.mean()) < 1


def test_the_base_is_scored_without_weights():
    made = suite()
    spec = LoRASpec(made.network, ["q_proj"], r=2)
    target, weights = networks(made, spec, 6, scale=0.0)
    tasks = torch.arange(6)
    base = made.score(BaseCall(target), weights[:1], tasks)
    assert torch.equal(base, made.score(target, weights, tasks))


@pytest.mark.parametrize("pack", [True, False])
def test_the_loss_is_that_of_the_answers_and_what_ends_them(pack):
    made = suite(pack=pack)
    spec = LoRASpec(made.network, ["q_proj", "v_proj"], r=2)
    target, weights = networks(made, spec, 2)
    batch = made.sample(torch.tensor([0, 3]), 2, torch.Generator().manual_seed(0))
    assert len(batch["inputs"]["input_ids"]) == (2 if pack else 4)
    loss = made.loss(target(weights, batch["inputs"]), batch)
    losses, tokenizer = [], tiny.tokenizer()
    for task, own in zip((0, 3), weights, strict=True):
        for question in made.stories[task].questions:  # both have two
            right = question.options[question.answer]
            head = tokenizer(question.text)["input_ids"]
            tail = [*tokenizer(f" {right}")["input_ids"], tokenizer.eos_token_id]
            logits = target(own, {"input_ids": torch.tensor([[*head, *tail]])}).logits[0]
            losses.append(F.cross_entropy(logits[len(head) - 1 : -1], torch.tensor(tail)))
    assert float(loss) == pytest.approx(float(torch.stack(losses).mean()), abs=1e-5)


def test_questions_are_drawn_without_replacement_as_far_as_they_go():
    made = suite(pack=False)
    generator = torch.Generator().manual_seed(0)
    for samples, distinct in ((2, 2), (3, 3), (7, 4)):
        batch = made.sample(torch.tensor([5]), samples, generator)
        rows = batch["inputs"]["input_ids"]
        assert len(rows) == samples
        assert len({tuple(row.tolist()) for row in rows}) == distinct


def test_the_teacher_has_the_story_before_the_same_answers():
    made = suite()
    made.teach = True
    batch = made.sample(torch.tensor([0, 3]), 2, torch.Generator().manual_seed(0))
    ids = batch["teacher"]["input_ids"]
    tokenizer = tiny.tokenizer()
    for row, task in zip(ids, (0, 3), strict=True):
        assert tokenizer.decode(row).startswith(made.stories[task].text)
    assert int(batch["teacher_mask"].sum()) == int((batch["labels"] != IGNORED).sum())


def test_a_suite_is_found_again_with_its_run(tmp_path):
    folder = documents.save_model(tmp_path / "model")
    path = documents.write_stories(tmp_path / "stories.jsonl")
    made = StorySuite(folder, path, normalize_length=False)
    made.save(tmp_path)
    again = TaskSuite.load(tmp_path)
    assert isinstance(again, StorySuite)
    assert again.config() == made.config()
    assert again.stories == made.stories
    with pytest.raises(UsageError, match="cannot be saved"):
        suite().config()
    with pytest.raises(UsageError, match="no story"):
        StorySuite(tiny.causal(), [])
    (tmp_path / "stories.jsonl").unlink()
    with pytest.raises((RunError, UsageError), match="does not exist"):
        TaskSuite.load(tmp_path)
