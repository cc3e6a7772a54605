"""Contexts as keys and values of a tiny llama."""

from __future__ import annotations

import pytest
import tiny_language as tiny
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from hypergen.conditions import ConditionEncoder, ContextEncoder
from hypergen.conditions.cache import QUESTIONS, CacheReader, rotate, unrotate
from hypergen.errors import ConditionError

DEMOS = [{"input": "cat", "output": "animal"}, {"input": "cup", "output": ["thing", "it"]}]
STORY = "is it an animal or a thing ? " * 4


@pytest.fixture(scope="module")
def loaded():
    return tiny.causal("eager")


def made(loaded, **options):
    return ContextEncoder.from_model(loaded.model, loaded.tokenizer, **{"slots": 6, **options})


def models():
    torch.manual_seed(0)
    sizes = {"vocab_size": 80, "bos_token_id": 0, "eos_token_id": 0}
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **sizes))
    neox = GPTNeoXConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        rotary_pct=0.5,
        **sizes,
    )
    return {
        "llama": tiny.causal().model,
        "gpt2": gpt2.eval(),
        "half rotated": GPTNeoXForCausalLM(neox).eval(),
    }


@pytest.mark.parametrize("name", ["llama", "gpt2", "half rotated"])
def test_keys_are_told_from_their_positions(name):
    reader = CacheReader("model", "float32", 64, "mean", (models()[name], tiny.tokenizer()))
    # Nothing but the position tells equal tokens apart before the first attention.
    kept = reader.fill([torch.full((5,), 7)], 5)[0]
    assert kept.keys.shape == (*reader.shape[:2], 5, reader.shape[2])
    if name != "gpt2":  # it adds positions to the embeddings
        torch.testing.assert_close(kept.keys[0], kept.keys[0][:, :1].expand_as(kept.keys[0]))


def test_rotation_is_undone_exactly_also_where_it_scales():
    rotation = torch.randn(2, 7, 8)
    keys = torch.randn(2, 7, 8)
    rotation[:, :, 4:] = rotation[:, :, :4]
    torch.testing.assert_close(unrotate(rotate(keys, rotation), rotation), keys)


def test_the_model_keeps_its_own_attention(loaded):
    own = tiny.causal("sdpa")
    made(own)({"document": [STORY]})
    assert own.model.config._attn_implementation == "sdpa"


def test_of_a_long_context_the_tokens_looked_at_stay(loaded):
    encoder = made(loaded, takes="document", end="")
    condition = encoder([STORY])
    assert condition.tokens.shape == (1, 6, encoder.dim)
    ids = encoder.reader.ids(STORY.strip())
    whole = encoder.reader._chunk(ids, ids)  # keys do not depend on what comes behind
    layers, heads, width = encoder.shape
    keys = condition.tokens[0].unflatten(-1, (layers, 2, heads, width))[:, :, 0]
    # The first token stays first, and what is kept is part of what there was.
    torch.testing.assert_close(keys[0], whole.keys[:, :, 0])
    distances = torch.cdist(keys[:, 1, 1], whole.keys[1, 1])
    places = distances.argmin(1)
    assert float(distances.amin(1).max()) < 1e-5
    assert places.tolist() == sorted(set(places.tolist()))


def test_the_scores_are_the_attention_paid(loaded):
    reader = made(loaded).reader
    ids = reader.ids(STORY)[:10]
    mean = reader._chunk(ids, ids)
    with torch.no_grad():
        out = loaded.model.model(torch.cat([ids, ids])[None], output_attentions=True)
    paid = out.attentions[1][0, :, 10:, :10].unflatten(0, (2, 2)).mean((1, 2))
    torch.testing.assert_close(mean.scores[1], paid)


def test_a_short_context_is_repeated_and_ends_whole(loaded):
    encoder = made(loaded, slots=7, takes="text", end="")
    ids = encoder.reader.ids("cat dog cow")
    copies = torch.cat([ids[:1], ids.repeat(3)[-6:]])
    expected = encoder.reader._chunk(copies, ids)
    layers, heads, width = encoder.shape
    found = encoder(["cat dog cow"]).tokens[0].unflatten(-1, (layers, 2, heads, width))
    torch.testing.assert_close(found[:, :, 1], expected.values.permute(2, 0, 1, 3))


def test_length_costs_no_memory_and_every_chunk_may_stay(loaded):
    encoder = made(loaded, takes="document", chunk_size=12, end="", slots=9)
    reader, ids = encoder.reader, encoder.reader.ids(STORY.strip())
    kept = reader.read(ids, 9)
    assert kept.keys.shape == reader.read(ids.repeat(9), 9).keys.shape
    probe = torch.tensor(loaded.tokenizer(QUESTIONS)["input_ids"])
    chunks = [reader._chunk(c, torch.cat([probe, c])) for c in ids.tensor_split(3)]
    scores = torch.cat([chunk.scores for chunk in chunks], 2)
    scores[:, :, 0] = torch.inf
    torch.testing.assert_close(kept.scores.sum(2), _largest(scores, 9, chunks[0].scores))


def _largest(scores, count, first):
    """The sum of the highest scores, that of the first token as it was."""
    return scores.topk(count, 2).values[:, :, 1:].sum(2) + first[:, :, 0]


def test_no_context_depends_on_the_others_of_a_batch(loaded):
    encoder = made(loaded)
    rows = {"text": ["say it", None], "demos": [DEMOS, DEMOS[:1]], "document": [None, STORY]}
    both = encoder(rows)
    for i in range(2):
        alone = made(loaded)({kind: [column[i]] for kind, column in rows.items()})
        torch.testing.assert_close(alone.tokens[0], both.tokens[i])
    assert torch.equal(encoder(rows).tokens, both.tokens)  # kept by text


def test_all_kinds_become_one_text(loaded):
    encoder = made(loaded)
    rows = {"text": ["say it"], "demos": [DEMOS], "document": [STORY]}
    assert encoder.contexts(rows) == [
        "say it\n\nInput: cat\nOutput: animal\n\nInput: cup\nOutput: thing\n\n"
        + STORY.strip()
        + "\n\n"
    ]
    assert encoder.contexts({"text": ["say it"], "demos": [[]]}) == ["say it\n\n"]
    assert made(loaded, takes="demos").contexts(DEMOS) == made(loaded, takes="demos").contexts(
        [[("cat", "animal"), ("cup", "thing")]]
    )


@pytest.mark.parametrize("count", [2, 3, 7, 16])
def test_demonstrations_are_read_whole_as_many_as_fit(loaded, count):
    encoder = made(loaded, slots=23, end="")
    (text,) = encoder.contexts({"text": ["say it"], "demos": [[("cat", "animal")] * count]})
    size = len(encoder.reader.ids(text))
    each = len(encoder.reader.ids("Input: cat Output: animal"))
    assert text.count("Output") == min(count, (23 - 2) // each)
    assert size <= 23
    # A description that fills the slots alone still has one demonstration.
    (text,) = encoder.contexts({"text": [STORY], "demos": [[("cat", "animal")] * count]})
    assert text.count("Output") == 1


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"text": [" "]}, "text 0 is empty"),
        ({"document": ["a", ""]}, "document 1 is empty"),
        ({"demos": [[]]}, "context 0 is empty"),
        ({"demos": [[{"input": "cat"}]]}, "demonstration 0 of input 0 has no 'output'"),
        ({"demos": [[{"input": "cat", "output": " "}]]}, "output of .* is empty"),
        ({"demos": [["cat"]]}, "not an object with input and output"),
        ({"graph": ["x"]}, "not 'graph'"),
        ({"text": ["a"], "demos": [DEMOS, DEMOS]}, "1 text, 2 demos"),
        ({}, "takes a mapping"),
        (["a"], "takes a mapping"),
    ],
)
def test_bad_contexts_are_named(loaded, inputs, said):
    with pytest.raises(ConditionError, match=said):
        made(loaded)(inputs)


@pytest.mark.parametrize("options", [{"takes": "x"}, {"slots": 1}, {"reduce": "sum"}])
def test_bad_options_are_named(loaded, options):
    with pytest.raises(ConditionError, match=str(next(iter(options)))):
        made(loaded, **options)


def test_it_is_rebuilt_from_its_config(loaded, tmp_path):
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    encoder = made(loaded, model=str(tmp_path), takes="document")
    again = ConditionEncoder.from_dict(encoder.to_dict())
    assert torch.equal(again([STORY]).tokens, encoder([STORY]).tokens)
    assert not list(encoder.parameters())
    assert not encoder.state_dict()
