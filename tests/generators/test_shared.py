"""A shared adapter plus a generated delta."""

from __future__ import annotations

from dataclasses import replace

import matrix
import pytest
import tiny
import torch

from hypergen.conditions import FusedEncoder, HashingEncoder, TaskEncoder
from hypergen.errors import SpecError, WeightsError
from hypergen.generators import Generator, MultiTask, SharedPlusDelta
from hypergen.generators.shared import split_ranks
from hypergen.specs import LoRASpec, WeightSpec, concatenate_ranks
from hypergen.training.optim import parameter_groups

SPEC = LoRASpec(
    tiny.model("llama"),
    "all-linear",
    r=3,
    alpha=5.0,
    rank_pattern={"model.layers.1.mlp.up_proj": 5},
)
TEXTS = ["say yes if even", "no", "three of five"]
ARGS = {"hidden": 16, "depth": 1}


def drawn(spec: WeightSpec = SPEC, encoder=None, **options) -> SharedPlusDelta:
    torch.manual_seed(0)
    encoder = encoder or HashingEncoder(16)
    return SharedPlusDelta(spec, encoder, **{"generator_args": ARGS, **options}).eval()


def moved(*args, **options) -> SharedPlusDelta:
    """Every trained parameter off its start."""
    net = drawn(*args, **options)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def updates(weights) -> dict[str, torch.Tensor]:
    return {module: weights.spec.delta(weights, module) for module in weights.spec.modules}


@pytest.mark.parametrize("generated_rank", [None, 2])
@pytest.mark.parametrize("gate", [None, "open"])
def test_concatenated_ranks_are_the_sum_of_both_updates(generated_rank, gate):
    net = moved(combine="ranks", generated_rank=generated_rank, gate=gate)
    condition = HashingEncoder(16)(TEXTS)
    with torch.no_grad():
        weights, delta, gates = net(condition), net.delta(condition), net.gates(condition)
        shared = net.shared_spec.from_flat(net.shared)
    k = generated_rank or 1
    for module in SPEC.modules:
        assert net.delta.spec.rank(module) == k
        assert net.shared_spec.rank(module) == SPEC.rank(module) - k
        (a_s, b_s), (a, b) = (
            net.shared_spec.pair(shared, module),
            net.delta.spec.pair(delta, module),
        )
        expected = SPEC.scaling(module) * (b_s @ a_s + gates[:, None, None] * (b @ a))
        assert torch.allclose(SPEC.delta(weights, module), expected, atol=1e-6), module
        alone = SPEC.delta(net.shared_weights(), module)
        assert torch.allclose(alone, SPEC.scaling(module) * (b_s @ a_s), atol=1e-6), module


@pytest.mark.parametrize("spec_name", ["lora", "full_mlp", "peft_ia3", "prefix_llama"])
def test_tensors_are_added(spec_name):
    spec = matrix.spec(spec_name)
    net = moved(spec, generator="MLPGenerator")
    condition = HashingEncoder(16)(TEXTS)
    with torch.no_grad():
        expected = net.shared + net.delta(condition).flat() - spec.initial(0)
        assert torch.allclose(net(condition).flat(), expected, atol=1e-6)
        assert torch.allclose(net.shared_weights(2).flat(), net.shared.expand(2, -1), atol=1e-6)


@pytest.mark.parametrize("combine", ["add", "ranks"])
def test_a_closed_gate_leaves_the_shared_adapter(combine):
    net = moved(combine=combine, gate="closed")
    condition = HashingEncoder(16)(TEXTS)
    with torch.no_grad():
        assert 0 < float(net.gates(condition).max()) < 0.1
        net.gate[1].bias.fill_(-1000)
        closed, shared = updates(net(condition)), updates(net.shared_weights(3))
    for module, update in closed.items():
        assert torch.allclose(update, shared[module], atol=1e-7), module


def test_gates_start_at_their_end_for_every_condition_and_differ_later():
    condition = HashingEncoder(16)(TEXTS)
    assert torch.allclose(drawn(gate="open").gates(condition), torch.tensor(0.9820), atol=1e-4)
    assert torch.allclose(drawn(gate="closed").gates(condition), torch.tensor(0.0180), atol=1e-4)
    assert torch.equal(drawn().gates(condition), torch.ones(3))
    assert len(moved(gate="open").gates(condition).unique()) == 3


@pytest.mark.parametrize("combine", ["add", "ranks"])
def test_gradients_reach_every_part(combine):
    net, target = moved(combine=combine, gate="open"), matrix.make_target(tiny.model("llama"), SPEC)
    weights = net(HashingEncoder(16)(TEXTS))
    tiny.logits(target(weights, tiny.batch("llama", 3))).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("combine", ["add", "ranks"])
def test_a_frozen_shared_part_stays(combine):
    net = drawn(combine=combine, freeze_shared=True)
    before = net.shared.clone()
    groups = parameter_groups(net, 0.1)
    assert all(p is not net.shared for group in groups for p in group["params"])
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(HashingEncoder(16)(TEXTS)).flat().square().sum().backward()
        optimizer.step()
    assert net.shared.grad is None
    assert torch.equal(net.shared, before)
    assert net(HashingEncoder(16)(TEXTS)).flat().std(0).max() > 0


def test_dropped_deltas_are_rows_of_the_shared_adapter_and_in_training_alone():
    net = moved(combine="ranks", delta_dropout=0.5)
    condition = HashingEncoder(16)([f"task {i}" for i in range(64)])
    with torch.no_grad():
        full = net(condition)
        shared = updates(net.shared_weights())
        torch.manual_seed(0)
        training = updates(net.train()(condition))
    module = SPEC.modules[0]
    dropped = (training[module] - shared[module]).abs().amax((1, 2)) < 1e-7
    assert 16 < int(dropped.sum()) < 48
    assert torch.equal(training[module][~dropped], updates(full)[module][~dropped])
    assert torch.equal(net.eval()(condition).flat(), full.flat())


def test_both_parts_start_in_different_rows():
    weights = drawn(combine="ranks", generated_rank=1).shared_weights()
    for module in SPEC.modules:
        a, b = SPEC.pair(weights, module)
        assert int(torch.linalg.matrix_rank(a[0])) == SPEC.rank(module)
        assert bool((b == 0).all())


def test_a_lora_of_another_alpha_is_taken_over_with_its_update(tmp_path):
    shared_spec, _ = split_ranks(SPEC, 2)
    ranks = {m: shared_spec.rank(m) for m in SPEC.modules}
    other = LoRASpec(
        tiny.model("llama"),
        "all-linear",
        r=1,
        alpha=7.0,
        use_rslora=True,
        rank_pattern={m: r for m, r in ranks.items() if r != 1},
    )
    given = other.from_flat(torch.randn(other.numel))
    given.save(tmp_path / "shared.safetensors")
    file = str(tmp_path / "shared.safetensors")
    net = drawn(combine="ranks", generated_rank=2, shared_file=file, freeze_shared=True)
    for module, update in updates(net.shared_weights()).items():
        assert torch.allclose(update, other.delta(given, module), rtol=1e-4, atol=1e-4), module
    # The file is not needed again.
    net.save_pretrained(tmp_path / "generator")
    (tmp_path / "shared.safetensors").unlink()
    loaded = Generator.from_pretrained(tmp_path / "generator")
    assert torch.equal(loaded.shared_weights().flat(), net.shared_weights().flat())
    assert not loaded.shared.requires_grad


def test_it_lays_the_ranks_out_as_concatenate_ranks_does():
    net = moved(combine="ranks")
    with torch.no_grad():
        delta = net.delta(HashingEncoder(16)(TEXTS))
        weights = net(HashingEncoder(16)(TEXTS))
        shared = net.shared_spec.from_flat(net.shared.expand(3, -1))
        # A spec of r ranks scales by alpha / r, its parts by their own.
        joined = updates(concatenate_ranks([shared, delta]))
        module = SPEC.modules[0]
        ratios = [SPEC.scaling(module) / part.scaling(module) for part in (shared.spec, delta.spec)]
        expected = concatenate_ranks([shared, delta], ratios)
    assert torch.allclose(
        expected.spec.delta(expected, module), SPEC.delta(weights, module), atol=1e-6
    )
    assert torch.equal(SPEC.pair(weights, module)[0], expected.spec.pair(expected, module)[0])
    assert not torch.allclose(joined[module], SPEC.delta(weights, module), atol=1e-3)


@pytest.mark.parametrize("combine", ["add", "ranks"])
def test_a_trained_encoder_is_saved_once(combine, tmp_path):
    encoder = FusedEncoder({"text": HashingEncoder(16), "task": TaskEncoder(4, 8)}, dim=12)
    net = moved(SPEC, encoder, combine=combine, gate="open")
    assert not [name for name in net.state_dict() if name.startswith("delta.encoder")]
    loaded = Generator.from_pretrained(net.save_pretrained(tmp_path / "g"))
    inputs = {"text": TEXTS[:2], "task": [1, 3]}
    assert torch.equal(loaded.generate(**inputs).flat(), net.generate(**inputs).flat())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": "TextToLora"}, "no generator 'TextToLora'.*TextToLoRA"),
        ({"generator_args": {"widht": 3}}, "generator_args of TextToLoRA.*widht"),
        ({"combine": "sum"}, "combine 'sum' is neither add nor ranks"),
        ({"gate": "half"}, "gate 'half' is neither open nor closed"),
        ({"delta_dropout": 1.0}, "delta_dropout must be"),
        ({"generated_rank": 1}, "option of combine='ranks'"),
        ({"combine": "ranks", "generated_rank": 3}, "has rank 3, of which 3 cannot"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(SpecError, match=message):
        drawn(**options)
    with pytest.raises(SpecError, match="needs a LoRASpec, not FullSpec"):
        drawn(matrix.spec("full_mlp"), combine="ranks")


def test_shared_weights_that_do_not_fit_are_told():
    ranks, add = drawn(combine="ranks", generated_rank=1), drawn()
    with pytest.raises(WeightsError, match="one set of weights, not 2"):
        add.set_shared(add.shared_weights(2))
    with pytest.raises(WeightsError, match="must have the spec that is generated"):
        add.set_shared(ranks.shared_spec.from_flat(ranks.shared))
    with pytest.raises(WeightsError, match=r"have rank 3 in module .*; 2 ranks"):
        ranks.set_shared(add.shared_weights())
    with pytest.raises(WeightsError, match="not a LoRA of the modules"):
        ranks.set_shared(matrix.spec("lora").from_flat(matrix.spec("lora").initial(0)))
    slots = [replace(slot) for slot in ranks.shared_spec]
    foreign = LoRASpec.__new__(LoRASpec)
    config = ranks.shared_spec.config
    WeightSpec.__init__(
        foreign, slots, {**config, "base": {**config["base"], "fingerprint": "another"}}
    )
    with pytest.raises(WeightsError, match=r"another base model: .*another\), not "):
        ranks.set_shared(foreign.from_flat(foreign.initial(0)))


def test_guidance_scales_the_delta_of_generated_weights_alone():
    net = moved()
    condition = HashingEncoder(16)(TEXTS)
    plain = net.generate(condition=condition).flat()
    shared = net.shared_weights(3).flat().detach()
    net.guidance = 2.5
    guided = net.generate(condition=condition).flat()
    torch.testing.assert_close(guided - shared, 2.5 * (plain - shared), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.train()(condition).flat(), plain)


def test_the_shared_part_starts_from_a_multi_task_run(tmp_path):
    adapter = MultiTask(SPEC, HashingEncoder(16))
    with torch.no_grad():
        adapter.weights.normal_()
    adapter.save_pretrained(tmp_path / "run" / "generator")
    net = drawn(shared_file=str(tmp_path / "run"))
    torch.testing.assert_close(net.generate("yes").flat()[0], adapter.weights.detach())
    net.save_pretrained(tmp_path / "other" / "generator")
    with pytest.raises(WeightsError, match="not of MultiTask"):
        drawn(shared_file=str(tmp_path / "other"))
