"""Documents are read chunk by chunk, alike whole and streamed, and no further than needed."""

from __future__ import annotations

import copy
import io

import pytest
import tiny_language
import torch
from torch import nn

from hypergen.conditions import ConditionEncoder, DocumentEncoder
from hypergen.conditions.document import _here
from hypergen.errors import ConditionError
from hypergen.specs import LoRASpec

WORDS = " ".join(tiny_language.ANIMALS + tiny_language.THINGS)
DOCUMENTS = ["cat dog cow\nhen fox\n\nowl pig bee cup car", "pen box", f"{WORDS}\n{WORDS}"]


@pytest.fixture(scope="module")
def base():
    return tiny_language.causal()


def make(base, modules=("q_proj", "down_proj"), **options):
    options = {"chunk_size": 4, "batch_size": 3, **options}
    return DocumentEncoder.from_model(base.model, base.tokenizer, modules, **options)


def test_shapes_mask_and_padding(base):
    encoder = make(base)
    condition = encoder(DOCUMENTS)
    assert encoder.dim == condition.dim == 2 * 32
    assert condition.tokens.shape == (3, 8 * 4, 64)
    assert condition.mask.sum(1).tolist() == [10, 2, 32]
    assert not bool(condition.tokens[~condition.mask].any())
    assert not condition.tokens.requires_grad
    assert encoder("pen box").tokens.shape == (1, 4, 64)


def test_layers_are_the_models_own_hidden_states(base):
    encoder = make(base, chunk_size=16)
    ids = torch.tensor([base.tokenizer(DOCUMENTS[0])["input_ids"]])
    with torch.no_grad():
        states = base.model(ids, output_hidden_states=True).hidden_states
    wanted = torch.cat([s / s.square().mean(-1, keepdim=True).sqrt() for s in states[:2]], -1)
    torch.testing.assert_close(encoder(DOCUMENTS[:1]).tokens[:, :10], wanted, rtol=1e-4, atol=1e-4)


def test_modules_are_read_at_their_inputs(base):
    encoder = make(base, read="module", chunk_size=16)
    spec = LoRASpec(base.model, ["q_proj", "down_proj"])
    assert encoder.dim == 2 * (32 + 48)
    caught = {}
    handles = [
        base.model.get_submodule(path).register_forward_pre_hook(
            lambda _, args, path=path: caught.setdefault(path, args[0])
        )
        for path in spec.modules
    ]
    with torch.no_grad():
        base.model(torch.tensor([base.tokenizer(DOCUMENTS[0])["input_ids"]]))
    for handle in handles:
        handle.remove()
    tokens = encoder(DOCUMENTS[:1]).tokens[:, :10]
    for path in spec.modules:
        start, width = encoder.place(path)
        part = tokens[..., start : start + width]
        torch.testing.assert_close(part, caught[path], rtol=1e-4, atol=1e-5)


def test_chunks_do_not_see_each_other(base):
    encoder = make(base)
    first = encoder("cat dog cow hen fox owl pig bee").tokens
    second = encoder("cup car pen box fox owl pig bee").tokens
    assert not torch.allclose(first[:, :4], second[:, :4])
    torch.testing.assert_close(first[:, 4:], second[:, 4:])
    # Positions begin anew.
    torch.testing.assert_close(encoder("fox owl pig bee").tokens, first[:, 4:])


def test_neighbours_and_batches_do_not_matter(base):
    together = make(base)(DOCUMENTS)
    for i, document in enumerate(DOCUMENTS):
        alone = make(base, batch_size=1)(document)
        length = alone.tokens.shape[1]
        torch.testing.assert_close(together.tokens[i : i + 1, :length], alone.tokens)
        assert torch.equal(together.mask[i : i + 1, :length], alone.mask)
        assert not bool(together.mask[i, length:].any())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_streaming_gives_the_same_chunks(base, document):
    encoder = make(base)
    whole = encoder(document)
    for source in (document, io.StringIO(document), list(document)):
        parts = list(encoder.stream(source))
        assert all(part.tokens.shape[1] <= 3 * 4 for part in parts)
        torch.testing.assert_close(torch.cat([p.tokens for p in parts], 1), whole.tokens)
        assert torch.equal(torch.cat([p.mask for p in parts], 1), whole.mask)


def test_a_stream_reads_no_further_than_asked(base):
    taken = []

    def lines():
        for i in range(10**9):
            taken.append(i)
            yield "cat dog cow hen\n"

    stream = make(base).stream(lines())
    assert next(stream).tokens.shape == (1, 12, 64)
    assert len(taken) < 100


def test_nothing_runs_that_is_not_needed(base):
    ran = []
    names = ("model.layers.0", "model.layers.1", "model.layers.0.mlp", "lm_head")
    handles = [
        base.model.get_submodule(n).register_forward_hook(lambda *_, n=n: ran.append(n))
        for n in names
    ]
    try:
        make(base)(DOCUMENTS[1])
        assert ran == ["model.layers.0.mlp", "model.layers.0"]
        ran.clear()
        make(base, ["model.layers.0.self_attn.o_proj"], read="module")(DOCUMENTS[1])
        assert ran == []
    finally:
        for handle in handles:
            handle.remove()


def test_the_model_is_left_as_it_was(base):
    model = copy.deepcopy(base.model).train()
    encoder = DocumentEncoder.from_model(model, base.tokenizer, ["q_proj"], chunk_size=4)
    hooks = sum(len(m._forward_pre_hooks) for m in model.modules())
    torch.testing.assert_close(encoder("cat dog").tokens, make(base, ["q_proj"])("cat dog").tokens)
    assert model.training
    assert sum(len(m._forward_pre_hooks) for m in model.modules()) == hooks
    assert not encoder.state_dict()
    assert not list(encoder.parameters())
    assert copy.deepcopy(encoder)._base().model is model


def test_gpt2_is_read_too():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=99, n_embd=16, n_layer=2, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config).eval()
    encoder = DocumentEncoder.from_model(
        model, tiny_language.tokenizer(), ["mlp.c_proj"], read="module", chunk_size=8
    )
    assert encoder("cat dog").tokens.shape == (1, 8, 2 * 64)
    with pytest.raises(ConditionError, match="chunk_size 9 is more than the 8 tokens"):
        DocumentEncoder.from_model(model, None, ["c_attn"], chunk_size=9)


def test_an_encoder_is_saved_by_name_and_fingerprint(base, tmp_path):
    folder = tmp_path / "base"
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    encoder = DocumentEncoder(str(folder), ["q_proj"], chunk_size=4)
    assert encoder.fingerprint == base.fingerprint
    spec = LoRASpec(base.model, ["q_proj"])
    assert encoder.fingerprint == spec.config["base"]["fingerprint"]
    data = encoder.to_dict()
    again = ConditionEncoder.from_dict(data)
    assert torch.equal(again("cat dog").tokens, encoder("cat dog").tokens)
    assert torch.equal(again("cat dog").tokens, make(base, ["q_proj"])("cat dog").tokens)
    with pytest.raises(ConditionError, match="holds other weights"):
        ConditionEncoder.from_dict({**data, "fingerprint": "0" * 64})


def test_packaged_models_are_found_by_their_public_name():
    assert _here("HuggingFaceTB/SmolLM2-135M-Instruct") in (
        "smollm2",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
    )
    assert _here("else/where") == "else/where"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "no document given"),
        (["cat", " \n"], "document 1 is empty"),
        (["cat", 3], "document 1 is a int, not a string"),
        (["cat\0"], "document 0 holds NUL characters"),
    ],
)
def test_bad_documents_are_named(base, inputs, message):
    with pytest.raises(ConditionError, match=message):
        make(base)(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": ["k_prj"]}, "no module 'k_prj'. Did you mean 'k_proj'"),
        ({"modules": ["embed_tokens"], "read": "module"}, "reads token numbers"),
        ({"modules": ["lm_head"]}, "'lm_head' is in no numbered layer"),
        ({"modules": ["self_attn"], "read": "module"}, "is not linear"),
        ({"modules": []}, "at least one module"),
        ({"read": "logits"}, "read must be 'layer' or 'module'"),
    ],
)
def test_bad_options_are_named(base, options, message):
    with pytest.raises(ConditionError, match=message):
        make(base, **options)


def test_a_module_that_is_not_read_or_never_called_is_named(base):
    with pytest.raises(
        ConditionError, match=r"does not read for module 'model\.layers\.0\.mlp\.up_"
    ):
        make(base).place("model.layers.0.mlp.up_proj")
    model = copy.deepcopy(base.model)
    model.model.layers[0].spare = nn.Linear(3, 3)
    encoder = DocumentEncoder.from_model(
        model, base.tokenizer, ["spare"], read="module", chunk_size=4
    )
    with pytest.raises(ConditionError, match=r"never calls 'model\.layers\.0\.spare'"):
        encoder("cat")
