"""Demonstrations as a condition: a set, cached, masked, and whether it agrees."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypergen.conditions import (
    ConditionEncoder,
    DemoEncoder,
    FusedEncoder,
    HashingEncoder,
    TaskEncoder,
)
from hypergen.conditions.consistency import SIGNALS, consistency
from hypergen.errors import ConditionError

KINDS = ["pooled", "words"]
WORDS = st.sampled_from(["cat", "dog", "a red hen", "the very big owl", "fox ?"])
DEMOS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5)


def demo(given: str, wanted: str) -> dict[str, str]:
    return {"input": given, "output": wanted}


def encoder(tokens: str = "pooled", dim: int | None = 12) -> DemoEncoder:
    torch.manual_seed(0)
    return DemoEncoder(HashingEncoder(16), dim, tokens)


CASES = [
    [demo("cat", "animal"), demo("a red cup", "thing"), demo("the old dog", "animal")],
    [demo("one", "two")],
    [demo("up", "down"), demo("up", "down")],
]


@pytest.mark.parametrize("tokens", KINDS)
@given(demos=DEMOS, seed=st.integers(0, 5))
def test_the_order_of_demonstrations_changes_no_bit(tokens, demos, seed):
    order = torch.randperm(len(demos), generator=torch.Generator().manual_seed(seed))
    made = encoder(tokens)
    one, other = made([demos]), made([[demos[i] for i in order]])
    for name in ("tokens", "mask", "pooled", "signals"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("tokens", KINDS)
def test_ragged_batches_are_masked_and_company_does_not_matter(tokens):
    made = encoder(tokens)
    batch = made(CASES)
    assert bool((batch.tokens[~batch.mask] == 0).all())
    if tokens == "pooled":
        assert batch.tokens.shape == (3, 9, 12)
        assert batch.mask.sum(1).tolist() == [9, 3, 6]
    else:  # a token for each pair, and one for each word of input and output
        assert batch.mask.sum(1).tolist() == [3 + 2 + 4 + 4, 1 + 2, 2 + 4]
    for i, demos in enumerate(CASES):
        alone = made(demos)
        own = batch[i].trim()
        assert own.tokens.shape == alone.tokens.shape
        for name in ("tokens", "pooled", "signals"):
            assert torch.allclose(getattr(own, name), getattr(alone, name), atol=1e-6), name


@pytest.mark.parametrize("tokens", KINDS)
def test_every_part_of_every_pair_is_read(tokens):
    made = encoder(tokens)
    first = made(CASES[0])
    for i in range(3):
        for key in ("input", "output"):
            changed = [dict(d) for d in CASES[0]]
            changed[i][key] = "bee"
            other = made(changed)
            assert not torch.allclose(other.pooled, first.pooled, atol=1e-4)
            a, b = (c.tokens[0][c.mask[0]] for c in (first, other))
            assert len(a) != len(b) or not torch.allclose(a, b, atol=1e-4)


def test_what_is_input_and_what_output_is_told_apart():
    made = encoder()
    there, back = made([demo("cat", "dog")]), made([demo("dog", "cat")])
    assert not torch.allclose(there.tokens, back.tokens, atol=0.1)
    assert not torch.allclose(there.pooled, back.pooled, atol=0.1)
    # And what belongs together: the same inputs and outputs, paired otherwise.
    crossed = [[demo("a", "b"), demo("c", "d")], [demo("a", "d"), demo("c", "b")]]
    for tokens in KINDS:
        one, other = (encoder(tokens)(demos) for demos in crossed)
        assert not torch.allclose(one.tokens, other.tokens, atol=1e-2)


def test_a_pair_that_is_given_twice_counts_twice():
    made = encoder()
    once, twice = made(CASES[0]), made([*CASES[0], CASES[0][0]])
    assert twice.mask.sum() == once.mask.sum() + 3
    extra = made(CASES[0][:1]).pooled
    assert torch.allclose(twice.pooled, (3 * once.pooled + extra) / 4, atol=1e-5)


@pytest.mark.parametrize("tokens", KINDS)
def test_tuples_and_lists_of_outputs_are_taken(tokens):
    made = encoder(tokens)
    wanted = made(CASES[0])
    for demos in (
        [(d["input"], d["output"]) for d in CASES[0]],
        [{**d, "output": [d["output"], "or so"], "id": 3} for d in CASES[0]],
    ):
        assert torch.equal(made(demos).tokens, wanted.tokens)
        assert torch.equal(made([demos]).pooled, wanted.pooled)


@pytest.mark.parametrize("tokens", KINDS)
def test_gradients_reach_every_parameter(tokens):
    made = encoder(tokens)
    condition = made(CASES)
    (condition.tokens.square().sum() + condition.pooled.square().sum()).backward()
    assert all(bool(p.grad.any()) for p in made.parameters())


@pytest.mark.parametrize("tokens", KINDS)
def test_it_is_rebuilt_from_json(tokens):
    made = encoder(tokens)
    again = ConditionEncoder.from_dict(json.loads(json.dumps(made.to_dict())))
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(CASES).tokens, made(CASES).tokens)
    assert again.signal_names == SIGNALS


def test_a_text_is_embedded_once(monkeypatch):
    made, asked = encoder(), []
    embed = made.encoder.embed
    monkeypatch.setattr(made.encoder, "embed", lambda texts: asked.extend(texts) or embed(texts))
    first = made([CASES[0], CASES[0]])
    assert len(asked) == len(set(asked)) == 3 + 2 + 3  # inputs, two labels, pairs
    again = made(CASES[0][::-1])
    assert len(asked) == 8
    assert torch.equal(again.tokens[0], first.tokens[0])
    small = DemoEncoder(HashingEncoder(16), 12, cache_size=2)
    small.load_state_dict(made.state_dict())
    assert torch.equal(small(CASES[0]).tokens, again.tokens)
    assert len(small._cache) == 2


@pytest.mark.parametrize("tokens", KINDS)
def test_long_texts_are_read_as_far_as_the_encoder_goes(tokens):
    torch.manual_seed(0)
    made = DemoEncoder(HashingEncoder(16, max_length=8), 12, tokens)
    long = "one two three four five six seven eight nine ten eleven"
    batch = made([[demo("cat", "animal"), demo(long, "count")], [demo(long, "count")]])
    assert bool(torch.isfinite(batch.tokens).all())
    # The end is not read; what is in front, and the output, are.
    end = made([demo(long.replace("eleven", "twelve"), "count")])
    assert torch.allclose(end.pooled, batch.pooled[1:], atol=1e-6)
    for other in (demo(long.replace("one", "six"), "count"), demo(long, "say")):
        assert not torch.allclose(made([other]).pooled, batch.pooled[1:], atol=1e-3)
    # And the company of a long one changes nothing.
    short = made([demo("cat", "animal")])
    mixed = made([[demo(long, "count")], [demo("cat", "animal")]])[1].trim()
    assert torch.allclose(short.tokens, mixed.tokens, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "no demonstrations given"),
        ([[]], "input 0 has no demonstrations"),
        ([CASES[0], []], "input 1 has no demonstrations"),
        ("cat", "a list of objects with input and output, not a str"),
        (demo("a", "b"), "not a dict"),
        ([CASES[0], "cat"], "input 1 is a str, not a list"),
        ([[demo("a", "b"), {"input": "c"}]], "demonstration 1 of input 0 has no 'output'"),
        ([[{"output": "c"}]], "demonstration 0 of input 0 has no 'input'"),
        ([[demo("a", "b"), ["a", "b"]]], "demonstration 1 of input 0 is a list, not an object"),
        ([[demo("a", "b")], [{"input": "a", "output": 3}]], "output of demonstration 0 of input 1"),
        ([[{"input": None, "output": "a"}]], "input of demonstration 0 of input 0 is a NoneType"),
        ([[{"input": "a", "output": []}]], "empty list as its output"),
        ([[demo("a", " ")]], "output of demonstration 0 of input 0 is empty"),
    ],
)
def test_bad_demonstrations_are_told(inputs, message):
    with pytest.raises(ConditionError, match=message):
        encoder()(inputs)


def test_bad_encoders_and_options_are_told():
    with pytest.raises(ConditionError, match="reads texts, not task"):
        DemoEncoder(TaskEncoder(3))
    with pytest.raises(ConditionError, match="use 'pooled' or 'words'"):
        encoder("letters")
    with pytest.raises(ConditionError, match="dim must be at least 1"):
        encoder(dim=0)

    class Trained(HashingEncoder):
        def __init__(self):
            super().__init__(16)
            self.factor = torch.nn.Parameter(torch.ones(()))

    with pytest.raises(ConditionError, match="freeze the encoder"):
        DemoEncoder(Trained())


# -- beside a description ------------------------------------------------------------------------


def fused(tokens: str = "pooled") -> FusedEncoder:
    torch.manual_seed(0)
    text = HashingEncoder(16)
    return FusedEncoder({"text": text, "demos": DemoEncoder(text, 12, tokens)}, dim=10)


@pytest.mark.parametrize("tokens", KINDS)
def test_rows_without_demonstrations_or_text_share_a_batch_with_others(tokens):
    made = fused(tokens)
    texts = ["say what it is", "count", None]
    demos = [CASES[0], [], CASES[2]]
    batch = made({"text": texts, "demos": demos})
    assert bool(batch.mask.any(1).all())
    assert bool((batch.tokens[~batch.mask] == 0).all())
    for i, (text, own) in enumerate(zip(texts, demos, strict=True)):
        given = {"text": [text]} if not own else {"demos": [own]}
        given = {"text": [text], "demos": [own]} if own and text else given
        alone = made(given)
        assert torch.allclose(batch.pooled[i], alone.pooled[0], atol=1e-6)
        assert torch.allclose(batch.signals[i], alone.signals[0], atol=1e-6)
        a, b = batch.tokens[i][batch.mask[i]], alone.tokens[0][alone.mask[0]]
        assert torch.allclose(a, b, atol=1e-6)
    assert torch.equal(batch.signals[1], torch.zeros(4))


def test_the_pooled_vector_is_the_mean_of_the_parts_that_are_there():
    made = fused()
    text, demos = made({"text": ["count"]}), made({"demos": [CASES[0]]})
    both = made({"text": ["count", "count"], "demos": [CASES[0], None]})
    assert torch.allclose(both.pooled[0], (text.pooled + demos.pooled)[0] / 2, atol=1e-6)
    assert torch.allclose(both.pooled[1], text.pooled[0], atol=1e-6)


def test_a_row_without_any_part_is_told():
    with pytest.raises(ConditionError, match="input 1 has no part: give demos or text"):
        fused()({"text": ["a", None], "demos": [CASES[0], []]})
    with pytest.raises(ConditionError, match="give at least one"):
        fused()({"text": None, "demos": [[]]})
    with pytest.raises(ConditionError, match=r"different batch sizes \[2, 1\]"):
        fused()({"text": ["a"], "demos": [CASES[0], []]})


def test_a_generator_takes_demonstrations_text_or_both(tmp_path):
    import tiny

    from hypergen.generators import Generator, TransformerGenerator
    from hypergen.specs import LoRASpec

    spec = LoRASpec(tiny.model("mlp"), r=2)
    torch.manual_seed(0)
    net = TransformerGenerator(spec, fused(), dim=8, depth=1, heads=2)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    loaded = Generator.from_pretrained(net.save_pretrained(tmp_path / "g"))
    made = {}
    for name, inputs in {
        "text": {"text": "count"},
        "demos": {"demos": CASES[0]},
        "both": {"text": "count", "demos": CASES[0]},
        "other": {"text": "count", "demos": CASES[1]},
    }.items():
        made[name] = net.generate(**inputs).flat()
        assert torch.equal(loaded.generate(**inputs).flat(), made[name])
    assert torch.equal(net.generate("count", demos=CASES[0][::-1]).flat(), made["both"])
    flat = torch.cat(list(made.values()))
    assert float(torch.pdist(flat).min()) > 1e-3
    batch = net.generate(["count", None, "count"], demos=[[], CASES[0], CASES[0]]).flat()
    for row, name in enumerate(("text", "demos", "both")):
        assert torch.allclose(batch[row], made[name][0], atol=1e-5)


# -- whether they agree --------------------------------------------------------------------------


def signals(demos: list[tuple[str, str]]) -> dict[str, float]:
    row = DemoEncoder(HashingEncoder(512))([demos]).signals[0]
    return dict(zip(SIGNALS, row.tolist(), strict=True))


def test_the_same_input_with_another_output_is_a_contradiction():
    clear = [("the cat", "yes"), ("my car", "no"), ("one dog", "yes"), ("that cup", "no")]
    assert signals(clear)["contradiction"] < 0.05
    assert signals(clear + clear)["contradiction"] < 0.05  # the same again is none
    flipped = [(text, "no" if said == "yes" else "yes") for text, said in clear]
    assert signals(clear + flipped)["contradiction"] > 0.8
    assert signals([*clear, flipped[0]])["contradiction"] == pytest.approx(2 / 5, abs=0.1)


def test_similar_inputs_with_other_outputs_do_not_agree():
    rows = [(f"{kind} {word}", said) for kind, said in (("animal", "yes"), ("thing", "no"))
            for word in ("red", "big", "old", "new")]  # fmt: skip
    mixed = [(text, ("yes", "no")[i % 2]) for i, (text, _) in enumerate(rows)]
    assert signals(rows)["agreement"] > signals(mixed)["agreement"] + 0.2
    copied = [(word, f"say {word}") for word in ("cat", "house", "tree", "river")]
    moved = [(a, b) for (a, _), (_, b) in zip(copied, copied[1:] + copied[:1], strict=True)]
    assert signals(copied)["alignment"] > 0.5
    assert signals(moved)["alignment"] < 0.05


def test_one_demonstration_agrees_with_itself_and_padding_says_nothing():
    assert signals([("a", "b")]) == {**dict.fromkeys(SIGNALS, 0.0), "size": pytest.approx(0.2)}
    x = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    y = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True, True, True, False, False]])
    assert torch.allclose(consistency(x, y, mask), consistency(x[:, :3], y[:, :3], mask[:, :3]))
    none = consistency(x, y, torch.zeros_like(mask))
    assert torch.equal(none, torch.zeros(1, 4))
