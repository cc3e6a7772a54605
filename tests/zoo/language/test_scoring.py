"""Prompts that are read once, in the wording that is asked for, and what is measured on them."""

from __future__ import annotations

import pytest
import torch
from tiny_language import all_tasks, causal, echo, instance, kinds, write_tasks

from hypergen.specs import LoRASpec
from hypergen.targets import LoRATarget
from hypergen.zoo.base_call import BaseCall
from hypergen.zoo.language import CausalSuite, prefill, room
from hypergen.zoo.language.decoding import greedy_answers
from hypergen.zoo.language.ranking import choice_scores
from hypergen.zoo.language.rouge import longest_common, rouge_l
from hypergen.zoo.language.scoring import measure
from hypergen.zoo.language.variants import InContext


@pytest.fixture
def suite(tmp_path):
    return CausalSuite(causal(), all_tasks(tmp_path), prompt={"description": True})


def adapted(suite, count):
    spec = LoRASpec(suite.network, ["q_proj", "v_proj"], r=2)
    torch.manual_seed(1)
    return LoRATarget(suite.network, spec), spec.from_flat(0.3 * torch.randn(count, spec.numel))


class Recorded:
    """A target that keeps no state and remembers the prompts that it read."""

    def __init__(self, target, suite):
        self.target, self.suite, self.texts = target, suite, []

    def __call__(self, weights, batch):
        decode = self.suite.language_model.tokenizer.batch_decode
        self.texts.append(decode(batch["input_ids"], skip_special_tokens=True))
        return self.target(weights, batch)


@pytest.mark.parametrize("worth", [1, 10**6])
def test_prompts_read_once_answer_as_prompts_read_whole(suite, monkeypatch, worth):
    monkeypatch.setattr(prefill, "_WORTH", worth)
    target, weights = adapted(suite, 3)
    tasks, rows = torch.tensor([1, 2, 3]), torch.tensor([[0, 1], [2, 3], [4, 5]])
    wordings = torch.tensor([2, 1, 0])
    sizes = []
    call = target.call
    monkeypatch.setattr(
        target, "call", lambda w, **k: (sizes.append(tuple(k["input_ids"].shape)), call(w, **k))[1]
    )
    ids, length, _ = suite.sequences(tasks, rows, "train", None, wordings)
    state = prefill.prefill(suite, target, weights, ids, length, 3)
    assert [s[0] for s in sizes] == ([3, 6] if worth == 1 else [6])
    if worth == 1:
        assert sum(a * b for a, b in sizes) < ids.numel()  # what is shared is read once
    whole = target(weights, {"input_ids": ids}).logits
    last = whole[torch.arange(6), length - 1]
    torch.testing.assert_close(state.logits, last, atol=1e-5, rtol=1e-5)
    options = [("cat", "big thing", "dog"), ("animal",), ("pen", "very big thing")] * 2
    common = (weights, tasks, rows, options, "train", wordings)
    scores = choice_scores(suite, target, *common, state)
    torch.testing.assert_close(scores, choice_scores(suite, target, *common), atol=1e-4, rtol=1e-5)
    # Ranking has not changed what decoding goes on from.
    texts = greedy_answers(suite, target, weights, tasks, rows, "train", wordings, state)
    assert texts == greedy_answers(suite, target.__call__, *common[:3], "train", wordings)
    assert texts != greedy_answers(suite, target, *common[:3], "train", wordings.clamp(max=0))


def test_metrics_are_those_of_each_network_alone(suite):
    suite.eval_batch = 5
    target, weights = adapted(suite, 5)
    tasks, wordings = torch.tensor([2, 0, 1, 2, 3]), torch.tensor([1, 0, 3, 0, 1])
    found = suite.metrics(target, weights, tasks, "test", wordings)
    assert set(found) == {"score", "exact", "rank", "rouge_l"}
    for i in range(5):
        one = slice(i, i + 1)
        for target_ in (target, target.__call__):  # with and without kept keys
            alone = suite.metrics(target_, weights[i], tasks[one], "test", wordings[one])
            for name, values in alone.items():
                torch.testing.assert_close(found[name][one], values, equal_nan=True)
    assert found["rank"].isnan().tolist() == [False, True, False, False, False]
    assert torch.equal(found["score"], suite.score(target, weights, tasks, "test", wordings))
    assert bool((found["rouge_l"] >= found["exact"] - 1e-6).all())


def test_the_prompt_holds_the_description_that_is_asked_for(suite):
    target, weights = adapted(suite, 2)
    tasks = torch.tensor([1, 2])
    for wordings in ([0, 0], [3, 1]):
        spy = Recorded(target, suite)
        suite.metrics(spy, weights, tasks, "test", torch.tensor(wordings))
        own = [suite.tasks[t].descriptions[w] for t, w in zip((1, 2), wordings, strict=True)]
        texts = [text for call in spy.texts for text in call]
        assert {text.partition(" Input :")[0] for text in texts} == set(own)
        spy = Recorded(target, suite)
        suite.score(spy, weights, tasks, "test", torch.tensor(wordings))
        texts = [text for call in spy.texts for text in call]
        assert {text.partition(" Input :")[0] for text in texts} == set(own)


def test_variants_leave_the_description_out_or_show_examples(tmp_path):
    many = kinds()
    examples = [{"input": w, "output": "animal"} for w in ("fox", "owl", "pig", "bee")]
    many["Positive Examples"] = examples
    folder = write_tasks(
        tmp_path, many=many, echo=echo(), none={**kinds(True), "Positive Examples": []}
    )
    suite = CausalSuite(causal(), folder, prompt={"description": True}, max_length=64)
    target, weights = adapted(suite, 3)
    tasks = torch.tensor([0, 1, 2])
    wordings = torch.tensor([0, 1, 0])

    def asked(variant):
        spy = Recorded(target, suite)
        variant.score(spy, weights, tasks, "test", wordings)
        return {text.rpartition("Input :")[0].strip() for call in spy.texts for text in call}

    variants = suite.prompt_variants(3)
    assert set(variants) == {"plain", "incontext"}
    assert set(suite.prompt_variants(0)) == {"plain"}
    assert not variants["plain"].reads_description
    assert asked(variants["plain"]) == {""}
    # As training asks when it drops descriptions.
    dropped = suite.sequences(tasks, torch.zeros(3, 1).long(), "test", None, torch.full((3,), -1))
    plain = variants["plain"].sequences(tasks, torch.zeros(3, 1).long(), "test", None, wordings)
    assert torch.equal(dropped[0], plain[0])
    shown = " ".join(f"Input : {word} Output : animal" for word in ("fox", "owl", "pig"))
    echoed, said = "say the word again Input : cat Output : cat", "say animal or very big thing ."
    assert asked(variants["incontext"]) == {
        echoed,
        f"{said} {shown}",
        "is it an animal or a thing ?",
    }
    assert asked(suite) == {"say the word again", said, "is it an animal or a thing ?"}
    assert CausalSuite(causal(), folder).prompt_variants() == {}


def test_demonstrations_that_do_not_fit_are_left_out(tmp_path, monkeypatch):
    many = kinds()
    many["Positive Examples"] = [{"input": w, "output": "animal"} for w in ("fox", "owl", "pig")]
    folder = write_tasks(tmp_path, many=many, echo=echo())
    suite = CausalSuite(causal(), folder, prompt={"description": True}, max_length=32)
    for tokens, shown in ((18, [1, 3]), (17, [1, 2]), (11, [1, 1]), (5, [0, 0])):
        monkeypatch.setattr("hypergen.zoo.language.variants.SHOT_TOKENS", tokens)
        variant = InContext.with_shots(suite, 3)
        assert variant.counts_shown() == shown
        assert variant.max_length == 32 + tokens  # inputs are cut no more than without them
    target, weights = adapted(suite, 1)
    monkeypatch.setattr("hypergen.zoo.language.variants.SHOT_TOKENS", 0)
    bare = InContext.with_shots(suite, 3).score(BaseCall(target), weights, torch.tensor([1]))
    assert torch.equal(bare, suite.score(BaseCall(target), weights, torch.tensor([1])))


def test_rouge_l_has_the_values_of_its_definition():
    # The example of Lin (2004), section 3: subsequences of 3 and 2 words, of 4 and 4.
    reference = "police killed the gunman"
    assert rouge_l("police kill the gunman", [reference]) == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", [reference]) == pytest.approx(0.5)
    # Precision 3/3, recall 3/5: 2 · 1 · 0.6 / 1.6.
    assert rouge_l("The cat sat.", ["the black cat also sat"]) == pytest.approx(0.75)
    assert rouge_l("a b", ["x", "B a b", "b"]) == pytest.approx(0.8)  # the best of them
    assert rouge_l("", ["a"]) == rouge_l("a", ["?"]) == rouge_l("", ["?"]) == 0
    assert rouge_l("?", ["?"]) == 1
    assert longest_common("abcbdab", "bdcaba") == 4


def test_an_answer_ends_with_its_line(tmp_path, suite):
    begins, breaks = suite.line_tokens()
    assert len(begins) == len(breaks) == suite.network.config.vocab_size
    token = suite.language_model.tokenizer.convert_tokens_to_ids
    assert bool(begins[token("cat")])
    assert not bool(breaks.any())  # this tokenizer has no line breaks
    target, weights = adapted(suite, 1)
    suite._lines = begins, torch.ones_like(breaks)  # as if every token ended a line
    rows = torch.zeros(1, 2).long()
    texts = greedy_answers(suite, target, weights, torch.tensor([1]), rows)
    assert all(len(text.split()) == 1 for text in texts)


def test_long_descriptions_get_room_and_those_beyond_it_are_named(tmp_path, suite):
    suite.max_length = 20
    suite._config["max_length"] = 20
    long = {**echo(), "Definition": ["word " * 60]}
    folder = write_tasks(
        tmp_path / "given", long=long, beyond={**echo(), "Definition": ["word " * 200]}
    )
    (folder / "bad.json").write_text('{"Definition": ["x"], "Instances": [{"input": "a"}]}')
    more = suite.with_tasks(folder)
    assert [more.names[t] for t in more.task_splits["given"]] == ["long"]
    assert 60 < more.max_length < 128
    said = [str(error) for error in more.skipped]
    assert "'Instances[0].output' is missing" in said[0]
    assert "'beyond'" in said[1]
    target, weights = adapted(more, 1)
    assert 0 <= float(more.score(target, weights, torch.tensor(more.task_splits["given"]))) <= 1


def test_stacks_hold_tasks_of_similar_length_and_no_more_than_fit(suite, monkeypatch):
    tasks = torch.arange(6)
    lengths = torch.tensor([50.0, 10, 60, 11, 9, 200])
    monkeypatch.setattr(room, "STEP_TOKENS", 100)
    order, sizes = room.stacks(lengths, tasks, 8)
    assert order.tolist() == [4, 1, 3, 0, 2, 5]
    assert sizes == [3, 1, 1, 1]
    assert room.stacks(lengths, tasks, 2)[1] == [2, 2, 1, 1]
    order, sizes = suite.stack_sizes(torch.tensor([2, 0, 1]), 4, 2)
    assert sorted(order.tolist()) == [0, 1, 2]
    assert sum(sizes) == 3
    assert not suite.has_samples(0, "dev")


def test_a_task_with_one_input_has_nothing_to_test(tmp_path):
    folder = write_tasks(tmp_path, one={**echo(), "Instances": [instance("cat", "cat")]})
    suite = CausalSuite(causal(), folder)
    assert suite.has_samples(0, "train")
    assert not suite.has_samples(0, "test")
    with pytest.raises(Exception, match="'one' has no instances in split 'test'"):
        measure(suite, BaseCall(adapted(suite, 1)[0]), torch.zeros(1), torch.tensor([0]))
