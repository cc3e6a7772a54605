"""Documents become the adapters of the definition, after every chunk, in any batch."""

from __future__ import annotations

import pytest
import torch
from fast_weights import DOCUMENTS, KINDS, TARGETS, adapter, base, delta, encoder, spec

from hypergen.conditions import Condition, HashingEncoder
from hypergen.errors import ConditionError, SpecError
from hypergen.generators import Generator
from hypergen.generators.fast_weights import GenerativeAdapter
from hypergen.generators.fast_weights.family import prefix_sums
from hypergen.specs import DeltaSpec, LoRASpec
from hypergen.targets import LoRATarget

OPTIONS = [
    {},
    {"shift": 1},
    {"decay": 0.5, "normalization": "none"},
    {"keys": "shared", "read": "module", "normalization": "ridge"},
    {"keys": "shared", "read": "module", "shift": 1, "decay": 0.7, "normalization": "ridge"},
    {"read": "module", "normalization": "frobenius"},
    {"value_rank": 5},
    {"value_rank": 5, "normalization": "ridge", "decay": 0.9},
]


def by_hand(net: GenerativeAdapter, condition: Condition, path: str) -> torch.Tensor:
    """ΔW of one document, token by token and chunk by chunk, in float64."""
    own, options = net.spec, net.options
    (family, i) = next(
        (f, ps.index(path))
        for f, ps in zip(net._families(), members(net), strict=True)
        if path in ps
    )
    start, width = net.encoder.place(path)
    tokens = condition.tokens[0, :, start : start + width].double()
    parts = {n: p[i].double() for n, p in family.named_parameters()}
    total = torch.zeros(options.state_rank, family.value_rank, dtype=torch.float64)
    gram = torch.zeros(options.state_rank, options.state_rank, dtype=torch.float64)
    size = net.chunk_size
    for first in range(0, len(tokens), size):
        if not bool(condition.mask[0, first : first + size].any()):
            break
        total, gram = total * options.decay, gram * options.decay
        for at in range(first, first + size):
            after = at + options.shift
            if after >= first + size or not bool(condition.mask[0, after]):
                continue
            normed = [t / (t.square().mean() + 1e-6).sqrt() for t in tokens]
            seen = tokens if net.encoder.read == "layer" else normed
            key = parts["query"] @ tokens[at] if "key" not in parts else parts["key"] @ seen[at]
            total += torch.outer(key, parts["value"] @ seen[after])
            gram += torch.outer(key, key)
    if options.normalization == "ridge":
        eye = gram.diagonal().mean() * options.ridge * torch.eye(len(gram))
        total = torch.linalg.inv(gram + eye) @ total
    if options.normalization == "frobenius":
        total = total / total.norm() * family.rank**0.5
    u, s, v = torch.linalg.svd(total, full_matrices=False)
    s = s[: family.rank]
    if options.normalization == "polar":
        s = (s > 1e-4 * s[0]).double()
    total = (u[:, : len(s)] * s) @ v[: len(s)]
    return own.scaling(path) * parts["out"] @ total.T @ parts["query"]


def members(net: GenerativeAdapter) -> list[list[str]]:
    own, out = net.spec, {}
    for path in own.modules:
        a, b = (own[name].shape for name in own.pair_names(path))
        out.setdefault((a, b, net.encoder.place(path)[1]), []).append(path)
    return list(out.values())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_updates_are_those_of_the_definition(options):
    net = adapter(**options)
    with torch.no_grad():
        condition = net.encode(document=DOCUMENTS)
        weights = net(condition)
        for i in (0, 2):
            alone = condition[i]
            for path in net.spec.modules:
                wanted = by_hand(net, alone, path)
                got = net.spec.delta(weights, path)[i].double()
                torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3 * float(wanted.max()))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_prefixes_are_the_adapters_of_shorter_documents(options):
    net = adapter(**options)
    with torch.no_grad():
        condition = net.encode(document=DOCUMENTS)
        weights, valid = net.prefix_weights(condition)
        assert valid.sum(1).tolist() == [3, 1, 8]
        assert len(weights) == valid.numel()
        weights.check_finite()
        for row, document in enumerate(condition):
            for chunk in range(int(valid[row].sum())):
                seen = 4 * (chunk + 1)
                part = Condition.from_tokens(document.tokens[:, :seen], document.mask[:, :seen])
                one = delta(net(part))
                got = delta(weights, row * valid.shape[1] + chunk)
                torch.testing.assert_close(got, one, rtol=1e-3, atol=1e-4 * float(one.abs().max()))


@pytest.mark.parametrize("decay", [1.0, 0.9, 0.3])
@pytest.mark.parametrize("chunks", [1, 2, 5, 8, 9])
def test_running_sums_are_those_of_a_loop(chunks, decay):
    draw = torch.Generator().manual_seed(chunks)
    sums = torch.randn(2, 3, chunks, 2, 2, generator=draw, dtype=torch.float64)
    out, running = prefix_sums(sums, decay), torch.zeros(2, 3, 2, 2, dtype=torch.float64)
    for i in range(chunks):
        running = decay * running + sums[:, :, i]
        torch.testing.assert_close(out[:, :, i], running)


def test_many_decayed_chunks_stay_finite():
    out = prefix_sums(torch.ones(1, 1, 5000, 1, 1), 0.5)
    torch.testing.assert_close(out[0, 0, -1], torch.full((1, 1), 2.0))


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_the_base_and_learns(kind):
    torch.manual_seed(0)
    net = GenerativeAdapter(spec(), encoder(), state_rank=6, normalization=kind)
    target = LoRATarget(base().model, spec())
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])
    condition = net.encode(document=DOCUMENTS)
    weights, inputs = net(condition), {"input_ids": ids}
    with torch.no_grad():
        for i in range(3):
            one = {"input_ids": ids[i : i + 1]}
            assert torch.equal(target(weights[i], one).logits, target.base(one).logits)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(8):
        loss = target(net(condition), inputs).logits.log_softmax(-1)[..., 3].neg().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1
    for name, parameter in net.named_parameters():
        assert bool(parameter.grad.abs().gt(0).any()), name
        assert bool(torch.isfinite(parameter.grad).all()), name


def test_what_is_emitted_has_the_rank_of_the_spec():
    net = adapter(spec(3), state_rank=16, value_rank=12)
    weights = net.generate(document=DOCUMENTS)
    assert sum(g.numel() for g in weights.groups) == 3 * spec(3).numel
    for path in net.spec.modules:
        assert weights[net.spec.pair_names(path)[0]].shape[1] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_updates_do_not_depend_on_neighbours(kind):
    # The second document has two tokens, fewer than the rank.
    net = adapter(spec(3), state_rank=16, value_rank=12, normalization=kind)
    with torch.no_grad():
        condition = net.encode(document=DOCUMENTS)
        together = net(condition)
        for i in range(3):
            torch.testing.assert_close(
                delta(together, i), delta(net(condition[i].trim())), rtol=1e-3, atol=1e-5
            )


def test_ranks_of_modules_may_differ_and_irregular_places_are_read():
    # One module of a layer and none of the next: readings at irregular places.
    targets = ["model.layers.1.self_attn.q_proj", "model.layers.0.self_attn.o_proj", "up_proj"]
    own = LoRASpec(base().model, targets, r=2, rank_pattern={"model.layers.1.mlp.up_proj": 3})
    net = adapter(own)
    with torch.no_grad():
        condition = net.encode(document=DOCUMENTS[2:])
        weights = net(condition)
        for path in own.modules:
            wanted = by_hand(net, condition, path)
            got = own.delta(weights, path)[0].double()
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3 * float(wanted.max()))


def test_modules_at_irregular_places_are_gathered():
    targets = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj")
    own = LoRASpec(base().model, [*targets, "model.layers.1.self_attn.q_proj"], r=2)
    net = adapter(own)
    assert [family.step for family in net._families()] == [0]
    with torch.no_grad():
        condition = net.encode(document=DOCUMENTS[2:])
        for path in own.modules:
            got = own.delta(net(condition), path)[0].double()
            wanted = by_hand(net, condition, path)
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3 * float(wanted.max()))


def test_generating_streams_and_equals_the_whole():
    net = adapter()
    whole = net(net.encode(document=DOCUMENTS)).detach()
    streamed = net.generate(document=DOCUMENTS, n=2)
    assert len(streamed) == 6
    for i in range(3):
        torch.testing.assert_close(delta(streamed, 2 * i), delta(whole, i), rtol=1e-3, atol=1e-6)
        assert torch.equal(streamed[2 * i].flat(), streamed[2 * i + 1].flat())
        alone = net.generate(document=DOCUMENTS[i])
        assert torch.equal(alone.flat(), streamed[2 * i].flat())
    assert streamed.provenance["document"] == DOCUMENTS


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "no document given"),
        (["cat", 3], "document 1 is a int"),
        (["cat", " "], "document 1 is empty"),
        (["c\0"], "document 0 holds NUL"),
    ],
)
def test_bad_documents_are_named(documents, message):
    with pytest.raises(ConditionError, match=message):
        adapter().generate(document=documents)


def test_saved_adapters_are_loaded_with_their_base(tmp_path):
    net = adapter(normalization="ridge", keys="shared", read="module")
    net.save_pretrained(tmp_path / "generator")
    loaded = Generator.from_pretrained(
        tmp_path / "generator", encoder=encoder("module", net.spec.modules)
    )
    again = loaded.generate(document=DOCUMENTS)
    assert torch.equal(again.flat(), net.generate(document=DOCUMENTS).flat())


def test_bad_options_are_named():
    with pytest.raises(SpecError, match="emits LoRA, not DeltaSpec"):
        GenerativeAdapter(DeltaSpec(base().model), HashingEncoder(8))
    for options, message in (
        ({"keys": "own"}, "keys is 'own'; it can be 'separate', 'shared'"),
        ({"shift": 2}, "shift is 2"),
        ({"normalization": "svd"}, "normalization is 'svd'"),
        ({"decay": 0.0}, "decay in"),
        ({"ridge": 0.0}, "ridge must be above 0"),
        ({"state_rank": 1}, r"has rank 2: state_rank \(1\)"),
        ({"value_rank": 1}, r"has rank 2: .* value_rank \(1\)"),
        ({"keys": "shared"}, "needs a DocumentEncoder with read='module'"),
    ):
        with pytest.raises(SpecError, match=message):
            GenerativeAdapter(spec(), encoder(), **options)
    with pytest.raises(ConditionError, match="does not read for module"):
        GenerativeAdapter(spec(), encoder(targets=TARGETS[:1]))
