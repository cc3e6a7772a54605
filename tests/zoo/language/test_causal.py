from __future__ import annotations

import pytest
import torch
from tiny_language import all_tasks, causal
from torch.nn import functional as F

from hypergen.errors import UsageError
from hypergen.specs import DeltaSpec, LoRASpec
from hypergen.targets import FunctionalTarget, LoRATarget
from hypergen.zoo.base_call import BaseCall
from hypergen.zoo.language import CausalSuite, Prompt, scoring
from hypergen.zoo.language.answers import answer_only
from hypergen.zoo.language.decoding import first_line, greedy_answers, is_right
from hypergen.zoo.language.ranking import choice_scores
from hypergen.zoo.language.scoring import measure
from hypergen.zoo.tasks import TaskSuite


@pytest.fixture
def folder(tmp_path):
    return all_tasks(tmp_path)


@pytest.fixture
def suite(folder):
    return CausalSuite(causal(), folder, prompt={"description": True})


def adapted(suite, count):
    """A target and as many different adapters, far from the base."""
    spec = LoRASpec(suite.network, ["q_proj", "v_proj"], r=2)
    torch.manual_seed(1)
    return LoRATarget(suite.network, spec), spec.from_flat(0.3 * torch.randn(count, spec.numel))


def reference_loss(suite, task, row):
    """Tokens by hand, one sample, no padding, logits everywhere."""
    model, tokenizer = suite.language_model.model, suite.language_model.tokenizer
    text = suite.tasks[task]
    instance = text.instances["train"][row]
    prompt = tokenizer(suite.prompt.text(text, instance))["input_ids"]
    answer = tokenizer(instance.outputs[0])["input_ids"] + [tokenizer.eos_token_id]
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return F.cross_entropy(logits, torch.tensor(answer), reduction="none")


@torch.no_grad()
def test_the_loss_is_the_mean_over_answer_tokens_of_each_task(suite):
    tasks, rows = torch.tensor([0, 2]), torch.tensor([[0, 3, 5], [9, 20, 1]])
    batch = suite.batch(tasks, rows)
    losses = suite.losses(suite.network(**batch["inputs"]), batch)
    for i, task in enumerate(tasks.tolist()):
        parts = [reference_loss(suite, task, row) for row in rows[i].tolist()]
        torch.testing.assert_close(losses[i], torch.cat(parts).mean(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(suite.loss(suite.network(**batch["inputs"]), batch), losses.mean())


@torch.no_grad()
def test_padding_changes_nothing(suite):
    tasks = torch.tensor([0, 1, 2])
    rows = torch.tensor([[0, 1], [2, 3], [4, 5]])
    batch = suite.batch(tasks, rows)
    target, weights = adapted(suite, 3)
    losses = suite.losses(target(weights, batch["inputs"]), batch)
    assert bool((batch["inputs"]["attention_mask"] == 0).any())
    for i in range(3):
        alone = suite.batch(tasks[i : i + 1], rows[i : i + 1])
        single = suite.losses(target(weights[i], alone["inputs"]), alone)
        torch.testing.assert_close(losses[i : i + 1], single, atol=1e-5, rtol=1e-5)


def test_the_view_has_the_models_own_logits_at_the_positions():
    model = causal().model
    view = answer_only(model)
    ids = torch.arange(5, 17).view(2, 6)
    at = torch.tensor([[-1, -3], [-2, -6]])
    logits = view(input_ids=ids, answer_positions=at)
    expected = model(ids).logits
    torch.testing.assert_close(logits[0], expected[0, [-1, -3]])
    torch.testing.assert_close(logits[1], expected[1, [-2, -6]])
    torch.testing.assert_close(view(ids).logits, expected)
    assert view.lm_head.weight is model.lm_head.weight
    with pytest.raises(UsageError, match="no output layer"):
        answer_only(model.model)


def test_samples_depend_on_the_generator_alone_and_stay_in_their_blocks(suite):
    tasks = torch.tensor([1, 2])
    draw = lambda: suite.sample(tasks, 4, torch.Generator().manual_seed(3))  # noqa: E731
    one, two = draw(), draw()
    assert torch.equal(one["inputs"]["input_ids"], two["inputs"]["input_ids"])
    ids = one["inputs"]["input_ids"]
    words = suite.language_model.tokenizer.batch_decode(ids)
    assert all("," in text for text in words[:4])  # the task whose inputs are lists
    assert not any("," in text for text in words[4:])


@pytest.mark.parametrize("normalize", [False, True])
def test_choices_in_one_sequence_score_as_alone(folder, normalize):
    suite = CausalSuite(
        causal(), folder, prompt=Prompt(description=True), normalize_length=normalize
    )
    tasks, rows = torch.tensor([1, 2]), torch.tensor([[0, 1], [2, 3]])
    choices = [("cat", "big thing", "dog"), ("animal",), ("pen", "very big thing"), ("a", "no")]
    target, weights = adapted(suite, 2)
    scores = choice_scores(suite, target, weights, tasks, rows, choices, "train")
    tokenizer = suite.language_model.tokenizer
    assert scores.shape == (4, 3)
    for n, options in enumerate(choices):
        task = suite.tasks[int(tasks[n // 2])]
        instance = task.instances["train"][int(rows[n // 2, n % 2])]
        prompt = tokenizer(suite.prompt.text(task, instance))["input_ids"]
        for c, option in enumerate(options):
            answer = [*tokenizer(option)["input_ids"], tokenizer.eos_token_id]
            with torch.no_grad():
                output = target(weights[n // 2], {"input_ids": torch.tensor([prompt + answer])})
            logp = output.logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            each = logp.gather(1, torch.tensor(answer)[:, None])
            expected = each.mean() if normalize else each.sum()
            torch.testing.assert_close(scores[n, c], expected, atol=1e-4, rtol=1e-5)
        assert bool((scores[n, len(options) :] == -torch.inf).all())


def test_answers_are_greedy_with_and_without_kept_keys(suite):
    tasks, rows = torch.tensor([0, 1]), torch.tensor([[0, 1, 2], [3, 4, 1]])
    base = LoRATarget(suite.network, LoRASpec(suite.network, r=1))
    neutral = base.spec.neutral(2)
    kept = greedy_answers(suite, base, neutral, tasks, rows, "train")
    again = greedy_answers(suite, base.__call__, neutral, tasks, rows, "train")
    assert kept == again
    assert kept == greedy_answers(suite, BaseCall(base), neutral, tasks, rows, "train")
    model, tokenizer = suite.language_model.model, suite.language_model.tokenizer
    for n, text in enumerate(kept):
        task = suite.tasks[n // 3]
        instance = task.instances["train"][int(rows[n // 3, n % 3])]
        ids = tokenizer(suite.prompt.text(task, instance), return_tensors="pt")["input_ids"]
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False
        )
        whole = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert whole.startswith(text)
        assert text


def test_functional_targets_take_the_view():
    model = causal("eager")
    view = answer_only(model.model)
    spec = DeltaSpec(view, "*q_proj.weight")
    target = FunctionalTarget(view, spec)
    flat = 0.2 * torch.randn(2, spec.numel)
    ids = torch.arange(5, 29).view(4, 6)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "answer_positions": torch.tensor([[-1], [-2], [-3], [-1]]),
    }
    logits = target(spec.from_flat(flat), inputs)
    half = {name: value[2:] for name, value in inputs.items()}
    torch.testing.assert_close(logits[2:], target(spec.from_flat(flat[1:]), half))
    assert logits.shape[:2] == (4, 1)


def test_scores_are_exact_matches_or_ranks(folder):
    tasks = torch.tensor([0, 2])  # open outputs; labels
    scores = {}
    for kind in ("auto", "exact"):
        suite = CausalSuite(causal(), folder, scoring=kind)
        target, weights = adapted(suite, 2)
        scores[kind] = suite.score(target, weights, tasks)
    assert float(scores["auto"][1]) > 0  # one of two labels is likelier, and sometimes right
    found = measure(suite, target, weights, tasks, metrics=("exact",))["exact"]
    assert torch.equal(scores["exact"], found)
    assert float(scores["auto"][0]) == float(scores["exact"][0])
    with pytest.raises(UsageError, match="'echo' has open outputs"):
        CausalSuite(causal(), folder, scoring="rank").score(target, weights, tasks)


def test_case_and_trailing_punctuation_do_not_count():
    assert is_right(" Paris.", ("London", "paris"))
    assert is_right("New  York", ("new york!",))
    assert not is_right("Paris, France", ("Paris",))
    assert not is_right("!", ("?",))


def test_the_first_line_counts_after_a_plain_prompt(folder, monkeypatch):
    assert first_line("\n Paris\n\nInput: Rome") == "Paris"
    said = lambda suite, *_: ["animal\n\nInput: dog"] * 8  # noqa: E731
    monkeypatch.setattr(scoring, "greedy_answers", said)
    tasks = torch.tensor([2])
    suite = CausalSuite(causal(), folder)
    weights = torch.zeros(1)  # indexed, and read by nobody
    exact = lambda: float(measure(suite, None, weights, tasks, metrics=["exact"])["exact"])  # noqa: E731
    assert exact() == 0.5
    suite.prompt = Prompt(template="chat")
    assert exact() == 0


def test_inputs_are_cut_and_descriptions_are_not(folder):
    suite = CausalSuite(causal(), folder, prompt={"description": True}, max_length=13)
    batch = suite.batch(torch.tensor([1]), torch.tensor([[0]]))
    text = suite.language_model.tokenizer.decode(batch["inputs"]["input_ids"][0])
    assert batch["inputs"]["input_ids"].shape[1] == 13
    assert text == "pick the first of two Input : cat , Output : cat </s>"
    short = CausalSuite(causal(), folder, prompt={"description": True}, max_length=8)
    with pytest.raises(UsageError, match="max_length=8: raise it"):
        short.batch(torch.tensor([1]), torch.tensor([[0]]))


def test_families_and_wordings_can_be_held_out(folder):
    suite = CausalSuite(causal(), folder, heldout_families=["Lists"])
    assert suite.task_splits == {"train": [0, 2, 3], "heldout_tasks": [1]}
    assert suite.descriptions["heldout"][1] == ["the first", "one of two"]
    assert len(suite.descriptions["train"][1]) == 2
    assert suite.descriptions["heldout"][0] == []
    more = suite.with_tasks(folder)
    assert more.task_splits["given"] == [4, 5, 6, 7]
    assert more.task_splits["train"] == [0, 2, 3]
    assert more.descriptions["given"][0] == []
    assert more.descriptions["given"][4] == list(suite.tasks[0].descriptions)
    with pytest.raises(UsageError, match="no instances in split 'dev'"):
        suite.sample(torch.tensor([0]), 1, torch.Generator(), "dev")
    with pytest.raises(UsageError, match="given its model as objects"):
        suite.config()
    with pytest.raises(UsageError, match="scoring is 'best'"):
        CausalSuite(causal(), folder, scoring="best")


def test_every_test_instance_is_scored_once_or_evenly_chosen(folder):
    suite = CausalSuite(causal(), folder, eval_batch=4)
    tasks = torch.tensor([1, 2])  # 2 and 8 test instances
    chunks = list(suite.evaluation_rows(tasks, "test"))
    rows, valid = (torch.cat(parts, 1) for parts in zip(*chunks, strict=True))
    assert rows[0][valid[0]].tolist() == [0, 1]
    assert rows[1][valid[1]].tolist() == list(range(8))
    assert all(chunk.shape[1] == 2 for chunk, _ in chunks)
    suite.eval_samples = 4
    ((rows, valid),) = [
        tuple(torch.cat(p, 1) for p in zip(*suite.evaluation_rows(tasks, "test"), strict=True))
    ]
    assert rows[1][valid[1]].tolist() == [0, 2, 4, 6]


def test_a_run_folder_rebuilds_the_suite(folder, tmp_path):
    made = causal()
    made.model.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    suite = CausalSuite(
        str(tmp_path / "model"), folder, prompt={"examples": 0}, heldout_families=["Lists"]
    )
    suite.save(tmp_path)
    again = TaskSuite.load(tmp_path)
    assert again.config() == suite.config()
    assert again.task_splits == suite.task_splits
    assert again.load_model(tmp_path) is again.network
