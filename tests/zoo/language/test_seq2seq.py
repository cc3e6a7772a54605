"""Encoder–decoder models: losses, answers, rankings and exports are those of the model alone."""

from __future__ import annotations

import pytest
import torch
from tiny_language import all_tasks, bart, causal, encoder, kinds, t5, write_tasks
from torch.nn import functional as F

from hypergen._utils.language_models import model_kind
from hypergen.errors import UsageError
from hypergen.serving import check_export
from hypergen.specs import LoRASpec
from hypergen.targets import LoRATarget
from hypergen.zoo.base_call import BaseCall
from hypergen.zoo.language import AdapterRun, Seq2SeqSuite, train_adapters
from hypergen.zoo.language.decoding import greedy_answers
from hypergen.zoo.language.kinds import SUITES, writing_suite
from hypergen.zoo.language.ranking import choice_scores
from hypergen.zoo.language.recipe import AdapterZoo
from hypergen.zoo.language.scoring import read_prompts
from hypergen.zoo.language.seq2seq import answers_alone

# Self-attention of both halves, cross-attention, and a feed-forward layer of each.
MODULES = {
    "tiny-t5": r".*\.(SelfAttention\.q|EncDecAttention\.[kv]|wo)",
    "tiny-bart": r".*\.(self_attn\.q_proj|encoder_attn\.[kv]_proj|fc1)",
}


@pytest.fixture(params=[t5, bart])
def suite(request, tmp_path):
    return Seq2SeqSuite(request.param(), all_tasks(tmp_path), prompt={"description": True})


def adapted(suite, count):
    """A target and as many different adapters, far from the base."""
    pattern = MODULES[suite.language_model.name]
    spec = LoRASpec(suite.network, pattern, r=2, task_type="SEQ_2_SEQ_LM")
    kinds = {path.split(".")[-1] for path in spec.modules}
    assert len(spec.modules) >= 8
    assert len(kinds) >= 3
    torch.manual_seed(1)
    return LoRATarget(suite.network, spec), spec.from_flat(0.3 * torch.randn(count, spec.numel))


def by_hand(suite, task, row, answer, call=None):
    """Logits at the tokens of one answer, without any padding, and the tokens."""
    tokenizer, text = suite.language_model.tokenizer, suite.tasks[task]
    prompt = tokenizer(suite.prompt.text(text, text.instances["train"][row]))["input_ids"]
    plain = tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    before = [3] if suite.language_model.name == "tiny-bart" else []
    start = suite.network.config.decoder_start_token_id
    inputs = {
        "input_ids": torch.tensor([prompt]),
        "decoder_input_ids": torch.tensor([[start, *before, *plain[:-1]]]),
    }
    output = suite.network(**inputs) if call is None else call(inputs)
    return output.logits[0, len(before) :], torch.tensor(plain)


@torch.no_grad()
def test_the_loss_is_that_of_the_answers_alone(suite):
    tasks, rows = torch.tensor([0, 2]), torch.tensor([[0, 3, 5], [9, 20, 1]])
    batch = suite.batch(tasks, rows)
    losses = suite.losses(suite.network(**batch["inputs"]), batch)
    for i, task in enumerate(tasks.tolist()):
        parts = []
        for row in rows[i].tolist():
            answer = suite.tasks[task].instances["train"][row].outputs[0]
            logits, tokens = by_hand(suite, task, row, answer)
            parts.append(F.cross_entropy(logits, tokens, reduction="none"))
        torch.testing.assert_close(losses[i], torch.cat(parts).mean(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_composition_of_a_batch_changes_nothing(suite):
    tasks, rows = torch.tensor([0, 1, 2]), torch.tensor([[0, 1], [2, 3], [4, 5]])
    target, weights = adapted(suite, 3)
    batch = suite.batch(tasks, rows)
    losses = suite.losses(target(weights, batch["inputs"]), batch)
    base = suite.losses(suite.network(**batch["inputs"]), batch)
    assert bool((batch["inputs"]["attention_mask"] == 0).any())
    assert float((losses - base).abs().min()) > 1e-3
    answers = greedy_answers(suite, target, weights, tasks, rows, "train")
    for i in range(3):
        alone = suite.batch(tasks[i : i + 1], rows[i : i + 1])
        single = suite.losses(target(weights[i], alone["inputs"]), alone)
        torch.testing.assert_close(losses[i : i + 1], single, atol=1e-5, rtol=1e-5)
        written = greedy_answers(
            suite, target, weights[i], tasks[i : i + 1], rows[i : i + 1], "train"
        )
        assert written == answers[2 * i : 2 * i + 2]


def test_answers_are_greedy_with_and_without_kept_keys(suite):
    tasks, rows = torch.tensor([0, 1]), torch.tensor([[0, 1, 2], [3, 4, 1]])
    target, weights = adapted(suite, 2)
    kept = greedy_answers(suite, target, weights, tasks, rows, "train")
    assert kept == greedy_answers(suite, target.__call__, weights, tasks, rows, "train")
    base = greedy_answers(suite, BaseCall(target), weights, tasks, rows, "train")
    assert base != kept
    assert any(kept)
    tokenizer = suite.language_model.tokenizer
    for n, text in enumerate(base):
        task = suite.tasks[n // 3]
        instance = task.instances["train"][int(rows[n // 3, n % 3])]
        ids = tokenizer(suite.prompt.text(task, instance), return_tensors="pt")["input_ids"]
        out = suite.network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            decoder_input_ids=suite.begin[None],
            max_new_tokens=20,
            do_sample=False,
        )
        whole = tokenizer.decode(out[0, len(suite.begin) :], skip_special_tokens=True)
        assert whole.startswith(text)


@pytest.mark.parametrize("keeps", [True, False])
def test_choices_score_as_alone(suite, keeps):
    tasks, rows = torch.tensor([1, 2]), torch.tensor([[0, 1], [2, 3]])
    choices = [("cat", "big thing", "dog"), ("animal",), ("pen", "very big thing"), ("a", "no")]
    target, weights = adapted(suite, 2)
    call = target if keeps else target.__call__
    state = read_prompts(suite, call, weights, tasks, rows, "train", None)
    assert (state is not None) == keeps
    for _ in range(2):  # a state can be gone on from again
        scores = choice_scores(suite, call, weights, tasks, rows, choices, "train", None, state)
    assert scores.shape == (4, 3)
    for n, options in enumerate(choices):
        task, row = int(tasks[n // 2]), int(rows[n // 2, n % 2])
        own = weights[n // 2]
        for c, option in enumerate(options):
            with torch.no_grad():
                logits, tokens = by_hand(
                    suite, task, row, option, lambda inputs, own=own: target(own, inputs)
                )
            expected = logits.log_softmax(-1).gather(1, tokens[:, None]).sum()
            torch.testing.assert_close(scores[n, c], expected, atol=1e-4, rtol=1e-5)
        assert bool((scores[n, len(options) :] == -torch.inf).all())


def test_training_reduces_the_loss(suite):
    target, _ = adapted(suite, 1)
    runs = [AdapterRun(1, 0, 2e-2), AdapterRun(2, 1, 2e-2)]
    made = train_adapters(target, target.spec, suite, runs, steps=30, samples=6)
    assert bool((made.metrics["test"]["loss"][-1] < 0.7 * made.base["test"]["loss"]).all())
    found = suite.metrics(
        target, target.spec.from_flat(made.weights[-1]), torch.tensor([1, 2]), "test"
    )
    assert found.keys() == {"score", "exact", "rank", "rouge_l"}


def test_stock_peft_gives_the_same_logits(suite, tmp_path):
    target, weights = adapted(suite, 1)
    weights = weights * 0.5
    inputs = suite.batch(torch.tensor([1]), torch.tensor([[0, 3]]))["inputs"]
    weights.save_pretrained(tmp_path / "adapter")
    assert check_export(weights, target, tmp_path / "adapter", inputs) < 1e-5


def test_variants_of_the_prompt_are_of_this_kind(suite):
    shown = {"description": True}
    suite = Seq2SeqSuite(suite.language_model, suite.tasks, prompt=shown, max_length=64)
    target, weights = adapted(suite, 2)
    tasks = torch.tensor([2, 3])
    variants = suite.prompt_variants(1)
    assert set(variants) == {"plain", "incontext"}
    lengths = {
        name: one.batch(tasks, torch.zeros(2, 1, dtype=torch.long))["inputs"]["input_ids"].shape[1]
        for name, one in {**variants, "own": suite}.items()
    }
    assert lengths["plain"] < lengths["own"] < lengths["incontext"]
    for one in variants.values():
        assert isinstance(one, Seq2SeqSuite)
        assert bool((one.score(target, weights, tasks) >= 0).all())
    bare = Seq2SeqSuite(suite.language_model, suite.tasks)
    assert bare.prompt_variants() == {}


def test_what_it_cannot_do_is_refused(suite):
    with pytest.raises(UsageError, match="pack: an encoder reads every sample by itself"):
        Seq2SeqSuite(suite.language_model, suite.tasks, pack=True)
    suite.language_model.model.config.decoder_start_token_id = None
    with pytest.raises(UsageError, match="set decoder_start_token_id"):
        Seq2SeqSuite(suite.language_model, suite.tasks)


def test_only_a_model_with_an_output_layer_writes():
    with pytest.raises(UsageError, match="LlamaModel has no output layer"):
        answers_alone(causal().model.model)


@pytest.mark.parametrize("make", [causal, t5, encoder])
def test_the_kind_of_a_model_is_read_off_its_configuration(make, tmp_path):
    made = make()
    made.model.config.architectures = [type(made.model).__name__]
    made.model.config.save_pretrained(tmp_path)
    assert model_kind(tmp_path) == made.kind
    if made.kind == "encoder":
        with pytest.raises(UsageError, match="is an encoder and writes no answers"):
            writing_suite(str(tmp_path))
    else:
        assert writing_suite(str(tmp_path)) is SUITES[made.kind]


def test_a_model_that_is_not_here_has_no_kind(tmp_path):
    with pytest.raises(UsageError, match=r"cannot load model '.*nowhere'"):
        model_kind(tmp_path / "nowhere")
    assert model_kind("some.gguf") == "causal"


def test_a_zoo_of_an_encoder_decoder_model(tmp_path):
    made = t5()
    made.model.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    write_tasks(tmp_path / "tasks", kinds=kinds(), swapped=kinds(True))
    recipe = AdapterZoo(
        "tiny",
        str(tmp_path / "model"),
        str(tmp_path / "tasks"),
        method={"r": 2, "target_modules": ["q", "v"]},
        steps=2,
        samples=2,
    )
    (block,) = recipe.run(0)
    assert [row.task for row in block.rows] == ["kinds", "swapped"]
    assert recipe.header().architectures["adapter"].spec.config["task_type"] == "SEQ_2_SEQ_LM"
    assert isinstance(recipe.suite(0), Seq2SeqSuite)
