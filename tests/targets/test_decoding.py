"""Target.generate: the text of each prompt is that of stock PEFT with its adapter loaded."""

from __future__ import annotations

import warnings

import pytest
import tiny
import tiny_language
import torch
from torch import nn

from hypergen._utils.language_models import LanguageModel
from hypergen.conditions import HashingEncoder
from hypergen.errors import UsageError, WeightsError
from hypergen.generators import MLPGenerator
from hypergen.specs import AdapterSpec, DeltaSpec, FullSpec, LoRASpec, PrefixSpec, Weights
from hypergen.specs.peft import structural_copy
from hypergen.targets import make_target
from hypergen.targets.decoding import _RowSampler, with_step
from hypergen.zoo.language.answers import answer_only
from hypergen.zoo.language.methods import method_spec

QV = ["q_proj", "v_proj"]
# `False`: stock PEFT's own generate loses the virtual tokens with transformers 5.24, which renamed
# the argument that it looks for; its forward, which reads all again for each token, is right.
METHODS: dict[str, tuple[dict, bool]] = {
    "lora": ({"r": 2, "target_modules": ["embed_tokens", *QV]}, True),
    "dora": ({"peft_type": "LORA", "r": 2, "target_modules": QV, "use_dora": True}, True),
    "ia3": (
        {
            "peft_type": "IA3",
            "target_modules": ["k_proj", "v_proj", "down_proj"],
            "feedforward_modules": ["down_proj"],
        },
        True,
    ),
    "fourierft": ({"peft_type": "FOURIERFT", "n_frequency": 10, "target_modules": QV}, True),
    "prefix": ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3}, False),
    "prompt": ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}, False),
    "own_prefix": ({}, False),
}
WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sequences": {"num_beams": 4, "num_return_sequences": 2},
    "uncached": {"use_cache": False},
}


def prompts(samples: int = 4, length: int = 6) -> dict[str, torch.Tensor]:
    """Prompts of several lengths, padded on the left."""
    draw = torch.Generator().manual_seed(0)
    mask = torch.ones(samples, length, dtype=torch.long)
    mask[1, :2] = 0
    mask[-1, :3] = 0
    return {
        "input_ids": torch.randint(3, 19, (samples, length), generator=draw) * mask,
        "attention_mask": mask,
    }


def far(spec, networks: int = 2) -> Weights:
    """Networks that say something else than the base, and than each other."""
    draw = torch.Generator().manual_seed(1)
    noise = torch.randn(networks, spec.numel, generator=draw)
    return spec.from_flat(spec.initial(1)[None] + 4 * noise * spec.per_entry("scale"))


def made(method: str) -> tuple[nn.Module, Weights, bool]:
    net = tiny.make("llama")
    options, whole = METHODS[method]
    if method == "own_prefix":
        return net, far(PrefixSpec(net, 3)), whole
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice
        return net, far(method_spec(LanguageModel(net, None, "t", "causal"), options)), whole


def stock(net: nn.Module, one: Weights, folder, whole: bool) -> nn.Module:
    """What writes by stock PEFT's code alone with one adapter loaded."""
    from peft import PeftModel

    one.save_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = PeftModel.from_pretrained(structural_copy(net), str(folder)).eval()
    if whole:
        return loaded

    def step(input_ids, **_):
        return loaded(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))

    return with_step(net, step)


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal but for the padding behind what ended, which the longest of a batch decides."""
    shared = min(ours.shape[1], theirs.shape[1])
    assert torch.equal(ours[:, :shared], theirs[:, :shared])
    assert bool(torch.isin(ours[:, shared:], torch.tensor([0, 2])).all())


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_each_sample_reads_as_by_stock_peft(method, way, tmp_path):
    net, weights, whole = made(method)
    options = {"max_new_tokens": 5, **WAYS[way]}
    batch = prompts()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    out = make_target(net, weights.spec).generate(weights, **batch, **options)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    each = options.get("num_return_sequences", 1)
    texts = set()
    for i in range(2):
        alone = stock(net, weights[i], tmp_path / str(i), whole)
        for row in (2 * i, 2 * i + 1):
            length = int(batch["attention_mask"][row].sum())
            ids = batch["input_ids"][row : row + 1, -length:]
            cached = {} if whole else {"use_cache": False}
            expected = alone.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), **{**options, **cached}
            )
            assert_same(out[each * row : each * (row + 1), 6:], expected[:, length:])
            texts.add(tuple(expected[0, length:].tolist()))
    assert len(texts) > 1


@pytest.mark.parametrize("kind", ["delta", "full"])
def test_other_parameters_write_as_a_model_of_their_own(kind):
    net = tiny.make("llama")
    spec = (DeltaSpec if kind == "delta" else FullSpec)(net, "model.layers.*.mlp.*")
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(2, spec.numel, generator=draw)
    weights = spec.from_flat(noise if kind == "delta" else spec.initial(0) + noise)
    batch = prompts()
    options = {"max_new_tokens": 5, "num_beams": 2}
    out = make_target(net, spec).generate(weights, **batch, **options)
    for i in range(2):
        own = tiny.make("llama")
        with torch.no_grad():
            for slot in spec:
                parameter = own.get_parameter(slot.parameter)
                value = weights[slot.name][i]
                parameter.copy_(parameter + value if kind == "delta" else value)
        rows = slice(2 * i, 2 * i + 2)
        expected = own.generate(**{k: v[rows] for k, v in batch.items()}, **options)
        assert_same(out[rows], expected)


def test_one_network_serves_all_prompts():
    net, weights, _ = made("lora")
    target, batch = make_target(net, weights.spec), prompts()
    one = target.generate(weights[0], **batch, max_new_tokens=4)
    both = target.generate(weights[[0, 0]], **batch, max_new_tokens=4)
    assert torch.equal(one, both)


def test_bottleneck_adapters_write_as_they_answer():
    net = tiny.make("gpt2")
    spec = AdapterSpec(net, ["mlp.c_proj"], 3)
    weights, batch = far(spec), prompts()
    target = make_target(net, spec)
    out = target.generate(weights, **batch, max_new_tokens=4)
    ids = batch["input_ids"][:1]
    for _ in range(4):  # the first row, which has no padding
        with torch.no_grad():
            logits = target(weights[0], {"input_ids": ids}).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(out[:1], ids)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_encoder_decoders_write_with_adapters_on_both_sides(kind, tmp_path):
    net = getattr(tiny_language, kind)().model
    modules = ["q", "v"] if kind == "t5" else QV
    spec = LoRASpec(net, modules, r=2, task_type="SEQ_2_SEQ_LM")
    weights = far(spec)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 20, (4, 5), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    options = {"max_new_tokens": 5, "num_beams": 3, "num_return_sequences": 2}
    out = make_target(net, spec).generate(weights, input_ids=ids, attention_mask=mask, **options)
    for i in range(2):
        loaded = stock(net, weights[i], tmp_path / str(i), True)
        rows = slice(2 * i, 2 * i + 2)
        expected = loaded.generate(input_ids=ids[rows], attention_mask=mask[rows], **options)
        assert_same(out[4 * i : 4 * i + 4], expected)


def test_a_view_that_leaves_logits_out_writes_the_same():
    net, weights, _ = made("lora")
    batch = prompts()
    out = make_target(net, weights.spec).generate(weights, **batch, max_new_tokens=4)
    view = answer_only(net)
    target = make_target(view, weights.spec)
    assert torch.equal(target.generate(weights, **batch, max_new_tokens=4), out)
    at = torch.full((4, 1), -1)
    assert target(weights, {**batch, "answer_positions": at}).shape[1] == 1  # still the view


def test_the_generator_is_not_called_while_decoding():
    net = tiny.make("llama")
    spec = LoRASpec(net, QV, r=2)
    generator = MLPGenerator(spec, HashingEncoder(16), hidden=8)
    calls = []
    generator.register_forward_hook(lambda *_: calls.append(1))
    weights = generator.generate(["one task", "another task"])
    made_in = len(calls)
    make_target(net, spec).generate(weights, **prompts(), max_new_tokens=4, num_beams=3)
    assert (made_in, len(calls)) == (1, 1)


def test_sampling_depends_on_the_seed_and_not_on_the_batch():
    net, weights, _ = made("lora")
    target, batch = make_target(net, weights.spec), prompts()
    options = {"max_new_tokens": 6, "do_sample": True, "num_return_sequences": 3, "top_k": 5}
    state = torch.random.get_rng_state()
    out = target.generate(weights, **batch, **options, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(target.generate(weights, **batch, **options, seed=3), out)
    assert not torch.equal(target.generate(weights, **batch, **options, seed=4), out)
    assert len({tuple(row.tolist()) for row in out[:3]}) > 1
    alone = target.generate(weights[1], **{k: v[2:3] for k, v in batch.items()}, **options, seed=3)
    assert_same(out[6:9, 6:], alone[:, 6:])
    one_each = target.generate(weights, **batch, **options, seed=[9, 9, 3, 9])
    assert torch.equal(one_each[6:9], out[6:9])


def test_scores_of_sampled_text_are_those_before_the_draw():
    net, weights, _ = made("lora")
    out = make_target(net, weights.spec).generate(
        weights,
        **prompts(),
        max_new_tokens=3,
        do_sample=True,
        top_k=0,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    for scores, logits in zip(out.scores, out.logits, strict=True):
        assert torch.allclose(scores, logits)


def test_tokens_are_drawn_with_their_probabilities():
    probabilities = torch.tensor([0.0, 0.5, 0.2, 0.0, 0.3, 0.0])
    sampler = _RowSampler(range(4000), 1, keep=False)
    scores = probabilities.log().expand(4000, -1)
    tokens = sampler(torch.zeros(4000, 1), scores).argmax(-1)
    share = torch.bincount(tokens, minlength=6) / 4000
    assert bool((share[probabilities == 0] == 0).all())
    assert torch.allclose(share, probabilities, atol=0.03)  # four standard deviations


def test_bad_calls_are_told():
    net, weights, _ = made("lora")
    target, batch = make_target(net, weights.spec), prompts()
    with pytest.raises(UsageError, match="pad on the left"):
        target.generate(
            weights, input_ids=batch["input_ids"], attention_mask=batch["attention_mask"].flip(1)
        )
    with pytest.raises(UsageError, match="give input_ids"):
        target.generate(weights, max_new_tokens=3)
    with pytest.raises(UsageError, match="3 seeds for 4 samples"):
        target.generate(weights, **batch, do_sample=True, seed=[1, 2, 3])
    with pytest.raises(WeightsError, match="4 samples cannot be split evenly over 3 networks"):
        target.generate(weights[[0, 1, 1]], **batch)
    with pytest.raises(WeightsError, match="the target takes slot"):
        target.generate(far(LoRASpec(net, ["o_proj"], r=2)), **batch)
    mlp = tiny.make("mlp")
    spec = LoRASpec(mlp, r=2)
    with pytest.raises(UsageError, match="MLP is no transformers model that writes text"):
        make_target(mlp, spec).generate(far(spec), input_ids=batch["input_ids"])
    t5 = tiny_language.t5().model
    spec = DeltaSpec(t5, "*.wi.weight")
    with pytest.raises(WeightsError, match="T5ForConditionalGeneration has an encoder"):
        make_target(t5, spec).generate(far(spec), input_ids=batch["input_ids"])
    net, weights, _ = made("ia3")
    with pytest.raises(UsageError, match="StaticLayer: generate with use_cache=False"):
        make_target(net, weights.spec).generate(
            weights, **batch, max_new_tokens=3, cache_implementation="static"
        )
