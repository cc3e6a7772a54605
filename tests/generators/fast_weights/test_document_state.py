"""States add up, have one size, and are read back by the generator that made them alone."""

from __future__ import annotations

import copy
import gc
import io

import pytest
import torch
from fast_weights import DOCUMENTS, KINDS, WORDS, adapter, base, delta, encoder, spec

from hypergen.conditions import HashingEncoder
from hypergen.errors import ConditionError, RunError, RunNotFoundError, WeightsError
from hypergen.generators import DocumentState, GenerativeAdapter
from hypergen.targets import LoRATarget


@pytest.mark.parametrize("kind", KINDS)
def test_the_empty_state_is_the_unchanged_base(kind):
    net = adapter(normalization=kind)
    state = net.state()
    assert (state.tokens, state.chunks) == (0, 0)
    assert not bool(delta(state.weights()).any())
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}
    target = LoRATarget(base().model, net.spec)
    with torch.no_grad():
        out = target(state.weights(), inputs).logits
        assert torch.equal(out, target.base(inputs).logits)
        state.update(DOCUMENTS[0])
        assert not torch.equal(target(state.weights(), inputs).logits, out)


@pytest.mark.parametrize("options", [{}, {"decay": 0.5, "normalization": "none"}, {"shift": 1}])
def test_streamed_states_are_those_of_the_whole_document(options):
    net = adapter(**options)
    whole = net(net.encode(document=DOCUMENTS[2])).detach()
    state = net.read(io.StringIO(DOCUMENTS[2]))
    assert (state.tokens, state.chunks) == (32, 8)
    torch.testing.assert_close(delta(state.weights()), delta(whole), rtol=1e-3, atol=1e-6)
    again = net.read(iter(DOCUMENTS[2]), net.state(), progress=False)
    assert all(torch.equal(a, b) for a, b in zip(again.sums, state.sums, strict=True))
    assert repr(state) == "DocumentState(32 tokens in 8 chunks)"


@pytest.mark.parametrize("kind", ["polar", "ridge"])
def test_updates_and_merges_add_up_in_any_order(kind):
    net = adapter(normalization=kind)
    states = [net.read(document) for document in DOCUMENTS]
    one = net.state()
    for document in DOCUMENTS:
        assert one.update(document) is one
    first = states[2].copy().merge(states[0]).merge(states[1])
    second = states[0].copy().merge(states[1]).merge(states[2])
    for a, b, c in zip(one.sums, first.sums, second.sums, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(a, c, rtol=1e-5, atol=1e-5)
    assert one.tokens == first.tokens == 44
    assert one.chunks == second.chunks == 12
    assert states[0].tokens == 10  # copies are what was changed
    with pytest.raises(WeightsError, match="different generators"):
        one.merge(adapter(normalization=kind, shift=1).state())


def test_encoded_documents_are_added_like_texts():
    net = adapter()
    encoded = net.state().update(net.encode(document=DOCUMENTS[0]))
    text = net.state().update(DOCUMENTS[0])
    assert encoded.tokens == text.tokens
    for a, b in zip(encoded.sums, text.sums, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ConditionError, match="reads one document, but 3"):
        net.state().update(net.encode(document=DOCUMENTS))


def test_decay_makes_what_comes_count_for_more():
    net = adapter(normalization="none")
    state = net.read(DOCUMENTS[0])
    before = delta(state.weights())
    torch.testing.assert_close(delta(state.decay(0.5).weights()), before / 2)
    with pytest.raises(ConditionError, match=r"in \[0, 1\], not 2"):
        state.decay(2)
    # The chunk's own decay is that of the generator.
    slow = adapter(normalization="none", decay=0.5)
    parts = slow.read(DOCUMENTS[1]).update(DOCUMENTS[1])
    torch.testing.assert_close(
        delta(parts.weights()), 1.5 * delta(slow.read(DOCUMENTS[1]).weights())
    )


def live_bytes() -> int:
    gc.collect()
    found = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in gc.get_objects()
        if type(t) is torch.Tensor
    }
    return sum(found.values())


def test_memory_does_not_depend_on_the_length(monkeypatch):
    net = adapter()
    size = net.state().nbytes
    peaks = []
    plain = DocumentState.add

    def measured(self, condition):
        peaks.append(live_bytes())
        return plain(self, condition)

    monkeypatch.setattr(DocumentState, "add", measured)
    several = f"{WORDS}\n" * 3  # 48 tokens, 12 chunks, 4 batches
    assert net.read(several).nbytes == size
    few = max(peaks)
    peaks.clear()
    state = net.read(several for _ in range(5))
    assert state.chunks == 60
    assert len(peaks) == 20
    assert state.nbytes == size
    assert max(peaks) <= few


def test_states_are_saved_and_read_on(tmp_path):
    net = adapter()
    path = tmp_path / "state.safetensors"
    net.read(DOCUMENTS[0]).save(path)
    net.read(DOCUMENTS[0]).save(tmp_path / "again.safetensors")
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    loaded = DocumentState.load(path, adapter())
    assert (loaded.tokens, loaded.chunks) == (10, 3)
    on = net.read(DOCUMENTS[0]).update(DOCUMENTS[1])
    loaded.update(DOCUMENTS[1])
    assert all(torch.equal(a, b) for a, b in zip(loaded.sums, on.sums, strict=True))


def test_states_of_others_and_damaged_files_are_refused(tmp_path):
    net = adapter()
    path = tmp_path / "state.safetensors"
    net.read(DOCUMENTS[0]).save(path)
    with pytest.raises(WeightsError, match="made by another generator"):
        DocumentState.load(path, adapter(shift=1))
    trained = adapter()
    with torch.no_grad():
        trained._families()[0].value.add_(1)
    with pytest.raises(WeightsError, match="made by another generator, or before more training"):
        DocumentState.load(path, trained)
    other = adapter()
    other.encoder._held._fingerprint = "0" * 64
    with pytest.raises(WeightsError, match="another base model"):
        DocumentState.load(path, other)
    net.generate(document=DOCUMENTS[0]).save(tmp_path / "weights.safetensors")
    with pytest.raises(RunError, match="holds no document state"):
        DocumentState.load(tmp_path / "weights.safetensors", net)
    with pytest.raises(RunNotFoundError):
        DocumentState.load(tmp_path / "none.safetensors", net)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunError, match="not a valid safetensors file"):
        DocumentState.load(path, net)
    bad = net.state()
    bad.sums[0].fill_(float("nan"))
    with pytest.raises(WeightsError, match="NaN"):
        bad.save(path)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT's call
def test_adapters_are_exported_at_any_moment(tmp_path):
    from peft import PeftModel

    net = adapter()
    state = net.read(DOCUMENTS[0])
    folder = state.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        ours = LoRATarget(base().model, net.spec)(state.weights(), {"input_ids": ids}).logits
        loaded = PeftModel.from_pretrained(copy.deepcopy(base().model), folder)
        theirs = loaded.eval()(ids).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_other_encoders_do_not_stream():
    net = GenerativeAdapter(spec(), HashingEncoder(8), state_rank=4)
    with pytest.raises(ConditionError, match="reads with a HashingEncoder"):
        net.read("cat")
    assert encoder().chunk_size == 4
