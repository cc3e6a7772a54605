"""refine and search: few-shot from the generated start, task by task."""

from __future__ import annotations

import warnings

import pytest
import tiny_language
import torch
from torch import nn
from torch.nn import functional as F

import hypergen
from hypergen.conditions import HashingEncoder
from hypergen.errors import UsageError, WeightsError
from hypergen.generators import MLPGenerator
from hypergen.specs import DeltaSpec, FullSpec, LoRASpec, PeftSpec, PrefixSpec, Weights
from hypergen.specs.peft import structural_copy
from hypergen.targets import make_target
from hypergen.zoo import BatchDemos, TextDemos, refine, search

DEMOS = [
    [
        {"input": "cat", "output": "animal"},
        {"input": "cup", "output": "thing"},
        {"input": "big dog", "output": "animal"},
        {"input": "pen", "output": "thing"},
    ],
    [
        {"input": "cow , box", "output": "cow"},
        {"input": "hat , hen", "output": ["hat", "a hat"]},
        {"input": "key , pig", "output": "key"},
    ],
]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))


def questions(tasks: int = 3, count: int = 12, seed: int = 0) -> BatchDemos:
    """Which side of a plane through the origin, a plane for each task."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, count, 5, generator=draw)
    normal = torch.randn(tasks, 5, 1, generator=torch.Generator().manual_seed(5))
    return BatchDemos(x, (x @ normal)[..., 0].gt(0).long())


def case(spec_of=lambda m: LoRASpec(m, ["0", "2"], r=2), tasks: int = 3):
    model = net()
    spec = spec_of(model)
    target = make_target(model, spec)
    start = spec.from_flat(torch.stack([spec.initial(i) for i in range(tasks)]))
    return target, start


def generator_of(spec, **options):
    torch.manual_seed(1)
    generator = MLPGenerator(spec, HashingEncoder(16), hidden=16, **options)
    with torch.no_grad():  # away from the zero start, where conditions have no gradient
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return generator


def test_no_steps_change_nothing_to_the_bit():
    target, start = case()
    start.provenance = {"text": ["a", "b", "c"]}
    out, trace = refine(start, target, questions(), steps=0)
    assert torch.equal(out.flat(), start.flat())
    assert out.provenance == start.provenance
    assert trace.losses.shape == (1, 3)
    generator = generator_of(start.spec)
    condition = generator.encode(text=["a", "b", "c"])
    made, found, _ = search(generator, condition, target, questions(), steps=0)
    assert torch.equal(found.tokens, condition.tokens)
    assert torch.equal(found.pooled, condition.pooled)
    assert torch.equal(made.flat(), generator.generate(condition=condition).flat())


def test_one_step_is_that_of_ordinary_training():
    """The first loss and step are those of torch's Adam on each task alone."""
    target, start = case()
    demos = questions()
    out, trace = refine(start, target, demos, steps=1, lr=0.05, clip=None)
    for i in range(3):
        leaf = start[i].flat().clone().requires_grad_()
        optimizer = torch.optim.Adam([leaf], lr=0.05)
        loss = F.cross_entropy(target(start.spec.from_flat(leaf), demos.inputs[i]), demos.labels[i])
        loss.backward()
        optimizer.step()
        assert torch.allclose(trace.before[i], loss.detach(), atol=1e-6)
        assert torch.allclose(out[i].flat(), leaf.detach(), atol=1e-6)


@pytest.mark.parametrize(
    "spec_of",
    [
        lambda m: LoRASpec(m, ["0", "2"], r=2),
        lambda m: FullSpec(m),
        lambda m: DeltaSpec(m),
        lambda m: PeftSpec(m, peft("IA3Config", target_modules=["0", "2"], feedforward_modules=[])),
    ],
    ids=["lora", "full", "delta", "ia3"],
)
def test_steps_lower_the_loss_of_every_kind_of_spec(spec_of):
    target, start = case(spec_of)
    before = start.flat().clone()
    state = {k: v.clone() for k, v in target.model.state_dict().items()}
    out, trace = refine(start, target, questions(), steps=15, lr=0.03)
    assert bool((trace.after < trace.before).all())
    assert torch.equal(start.flat(), before)  # the given weights stay
    assert all(torch.equal(v, state[k]) for k, v in target.model.state_dict().items())
    assert out.expected_gain is None
    assert out.provenance["refined"]["loss_after"] == pytest.approx(trace.after.tolist(), abs=1e-6)


def peft(name: str, **options):
    import peft as library

    return getattr(library, name)(**options)


@pytest.mark.parametrize("what", ["refine", "search"])
def test_a_task_does_not_depend_on_its_batch(what):
    target, start = case()
    demos = questions()
    generator = generator_of(start.spec)
    condition = generator.encode(text=["a", "b longer text", "c"])
    options = {"steps": 5, "lr": 0.02, "samples": 4, "heldout": 3, "select": "best", "seed": 2}

    def run(rows: list[int]) -> torch.Tensor:
        own = BatchDemos(demos.inputs[rows], demos.labels[rows])
        if what == "refine":
            return refine(start[rows], target, own, **options).weights.flat()
        found = search(generator, condition[rows], target, own, candidates=3, **options)
        return found.weights.flat()

    together = run([0, 1, 2])
    assert torch.equal(run([0, 1, 2]), together)
    assert torch.allclose(run([2, 0]), together[[2, 0]], atol=1e-5)


def test_the_best_step_is_that_of_what_is_held_out():
    target, start = case()
    options = {"steps": 12, "lr": 0.3, "heldout": 4}
    best, trace = refine(start, target, questions(), select="best", **options)
    assert trace.heldout is not None
    assert torch.equal(trace.heldout.argmin(0), trace.step)
    last, _ = refine(start, target, questions(), **options)
    seen: dict[int, Weights] = {}
    refine(start, target, questions(), on_step=seen.__setitem__, **options)
    assert sorted(seen) == list(range(13))
    assert torch.equal(last.flat(), seen[12].flat())
    for i, step in enumerate(trace.step.tolist()):
        assert torch.equal(best[i].flat(), seen[step][i].flat())
    assert bool((trace.step < 12).any())  # a step this long overshoots somewhere


def test_a_pull_keeps_near_the_start():
    target, start = case()
    free, _ = refine(start, target, questions(), steps=20, lr=0.05)
    held, _ = refine(start, target, questions(), steps=20, lr=0.05, pull=100.0)
    far, near = ((w.flat() - start.flat()).norm() for w in (free, held))
    assert near < 0.5 * far


def test_search_moves_the_condition_and_not_the_generator():
    target, start = case()
    generator = generator_of(start.spec).train()
    state = {k: v.clone() for k, v in generator.state_dict().items()}
    condition = generator.encode(text=["a", "b longer text", "c"])
    made, found, trace = search(generator, condition, target, questions(), steps=15, lr=0.05)
    assert bool((trace.after < trace.before).all())
    assert generator.training
    assert all(torch.equal(v, state[k]) for k, v in generator.state_dict().items())
    assert all(p.grad is None for p in generator.parameters())
    assert not torch.equal(found.pooled, condition.pooled)
    assert bool((found.tokens[~found.mask] == 0).all())
    with torch.no_grad():
        assert torch.equal(generator.eval()(found).flat(), made.flat())


def test_more_candidates_are_never_worse_on_what_chooses():
    target, start = case()
    generator = generator_of(start.spec)
    condition = generator.encode(text=["a", "b", "c"])
    options = {"steps": 3, "lr": 0.02, "select": "best"}
    one = search(generator, condition, target, questions(), **options).trace
    many = search(
        generator, condition, target, questions(), candidates=6, spread=2.0, **options
    ).trace
    assert bool((many.after <= one.after + 1e-6).all())
    assert bool((many.candidate > 0).any())


def test_text_demonstrations_are_asked_as_the_suite_asks():
    model = tiny_language.causal("eager")
    demos = TextDemos(model, DEMOS, ["say animal", "the first"], prompt={"description": True})
    assert demos.counts.tolist() == [4, 3]
    for spec in (LoRASpec(demos.network, ["q_proj"], r=2), PrefixSpec(demos.network, 2)):
        target = make_target(demos.network, spec)
        start = spec.from_flat(torch.stack([spec.initial(i) for i in range(2)]))
        out, trace = refine(start, target, demos, steps=6, lr=0.02, heldout=1)
        assert bool((trace.after < trace.before).all())
        # A task alone, and the model itself instead of the view that leaves logits out.
        alone = TextDemos(model, DEMOS[1], "the first", prompt={"description": True})
        plain = make_target(model.model, spec)
        own, _ = refine(start[1], plain, alone, steps=6, lr=0.02, heldout=1)
        assert torch.allclose(own.flat(), out[1].flat(), atol=1e-4)


def test_the_loss_of_text_is_that_of_the_answers_tokens():
    model = tiny_language.causal()
    demos = TextDemos(model, [{"input": "cat", "output": "animal"}])
    spec = LoRASpec(demos.network, ["q_proj"], r=2)
    weights = spec.from_flat(spec.initial()[None])
    target = make_target(demos.network, spec)
    total, count = demos.losses(target, weights, torch.tensor([0]), torch.tensor([[0]]))
    prompt = model.tokenizer("Input: cat\nOutput:")["input_ids"]
    answer = [*model.tokenizer(" animal")["input_ids"], model.tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model.model(torch.tensor([prompt + answer])).logits[0]
    expected = F.cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer), reduction="sum")
    assert count.item() == len(answer)
    assert total.item() == pytest.approx(expected.item(), abs=1e-4)


def test_generated_weights_start_ordinary_peft_training(tmp_path):
    """Stock PEFT goes on from the folder: the same first loss, the same first step of Adam."""
    from peft import PeftModel

    model = tiny_language.causal()
    demos = TextDemos(model, DEMOS[0])
    spec = LoRASpec(demos.network, ["q_proj", "v_proj"], r=2, task_type="CAUSAL_LM")
    weights = generator_of(spec).generate("animal or thing")
    ours, trace = refine(weights, make_target(demos.network, spec), demos, steps=1, clip=None)
    weights.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' and PEFT's own deprecations
        stock = PeftModel.from_pretrained(
            structural_copy(model.model), str(tmp_path), is_trainable=True
        ).eval()
    rows, labels = [], []
    for demo in DEMOS[0]:
        prompt = model.tokenizer(f"Input: {demo['input']}\nOutput:")["input_ids"]
        answer = [*model.tokenizer(demo["output"])["input_ids"], model.tokenizer.eos_token_id]
        rows.append(torch.tensor([*prompt, *answer]))
        labels.append(torch.tensor([*[-100] * len(prompt), *answer]))
    pad = torch.nn.utils.rnn.pad_sequence
    ids, wanted = pad(rows, batch_first=True), pad(labels, batch_first=True, padding_value=-100)
    trained = {n: p for n, p in stock.named_parameters() if p.requires_grad}
    assert len(trained) == len(spec)
    optimizer = torch.optim.Adam(trained.values(), lr=1e-3)
    loss = stock(input_ids=ids, attention_mask=(ids != 0).long(), labels=wanted).loss
    assert loss.item() == pytest.approx(float(trace.before), abs=1e-5)
    loss.backward()
    optimizer.step()
    for name, parameter in trained.items():
        short = name.removeprefix("base_model.model.").replace(".default", "")
        # A first step of Adam is the sign of the gradient: rounding turns it where that is zero.
        near = torch.isclose(ours[short][0], parameter.detach(), atol=1e-5)
        assert float(near.float().mean()) > 0.98


def test_encoder_decoders_are_refined_too():
    model = tiny_language.t5()
    demos = TextDemos(model, DEMOS[0])
    spec = LoRASpec(demos.network, ["q", "v"], r=2, task_type="SEQ_2_SEQ_LM")
    start = spec.from_flat(spec.initial()[None])
    for network in (demos.network, model.model):
        _, trace = refine(start, make_target(network, spec), demos, steps=4, lr=0.02)
        assert float(trace.after) < float(trace.before)


def test_they_are_public():
    assert hypergen.refine is refine
    assert hypergen.search is search
    assert hypergen.TextDemos is TextDemos


def test_bad_options_are_told():
    target, start = case()
    demos = questions()
    for options, message in (
        ({"steps": -1}, "steps must be 0 or more"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"samples": 0}, "samples is 0"),
        ({"select": "first"}, "use 'last' or 'best'"),
        ({"heldout": 12}, "heldout=12: a task has 12 demonstrations"),
    ):
        with pytest.raises(UsageError, match=message):
            refine(start, target, demos, **options)
    with pytest.raises(UsageError, match="demonstrations of 3 tasks for 2 networks"):
        refine(start[:2], target, demos)
    bad = BatchDemos(demos.inputs.clone(), demos.labels)
    bad.inputs[1, 0, 0] = torch.nan
    with pytest.raises(WeightsError, match="diverged on task 1 at step 0"):
        refine(start, target, bad)
    condition = HashingEncoder(16)(["a", "b", "c"])
    with pytest.raises(UsageError, match="no gradient with respect to the condition"):
        search(lambda c: start, condition, target, demos)
    model = tiny_language.causal()
    with pytest.raises(UsageError, match="demonstration 1 of task 0: 'input' must be a text"):
        TextDemos(model, [{"input": 3, "output": "a"}])
    with pytest.raises(UsageError, match="give texts, one for each task"):
        TextDemos(model, DEMOS, prompt={"description": True})
    with pytest.raises(UsageError, match="1 descriptions for the demonstrations of 2 tasks"):
        TextDemos(model, DEMOS, ["one"])
    with pytest.raises(UsageError, match="task 1 has no demonstration"):
        TextDemos(model, [DEMOS[0], []])
    with pytest.raises(UsageError, match="examples must be 0"):
        TextDemos(model, DEMOS, prompt={"examples": 1})
