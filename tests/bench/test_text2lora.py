"""The benchmark of Text-to-LoRA compares equal computations and reports every key."""

from __future__ import annotations

import shutil
import sys

import pytest
import torch

from hypergen import bench
from hypergen.bench import text2lora, text2lora_memory, text2lora_peer, text2lora_step
from hypergen.bench.text2lora_step import WAYS, Sizes, Step
from hypergen.errors import RunError
from hypergen.specs import LoRASpec

SIZES = Sizes(
    layers=2,
    hidden=16,
    heads=4,
    kv_heads=2,
    mlp=24,
    vocabulary=40,
    rank=2,
    features=16,
    condition=8,
    tasks=3,
    samples=2,
    tokens=7,
    answer=2,
)
KEYS = {"case", "metric", "ours", "reference", "ratio", "bound", "over_bound"}


def test_generation_compares_equal_adapters():
    row = text2lora.generation(SIZES, runs=2)
    assert set(row) >= KEYS
    assert row["metric"] == "s"
    assert row["ratio"] == row["reference"] / row["ours"]
    assert row["ratio_of_bound"] == row["reference"] / row["bound"]


def test_the_limit_counts_products_and_bytes():
    torch.manual_seed(0)
    spec = LoRASpec(text2lora_step.language_model(SIZES), ["q_proj", "v_proj"], r=SIZES.rank)
    generator, _ = text2lora_step.make_generator(spec, SIZES)
    work = text2lora.limits(generator, 3)
    assert work["mb_written"] == pytest.approx(4 * 3 * spec.numel / 1e6)
    trunk = 2 * 2 * (3 * 4) * (16 * 32 + 32 * 16)  # two blocks over four modules of three tasks
    head = 2 * 3 * 16 * spec.numel
    assert work["gflop"] == pytest.approx((trunk + head) / 1e9)


def test_adapters_that_differ_are_noticed(monkeypatch):
    original = text2lora_peer.Peer.deltas

    def wrong(self, layers, kind, encoded):
        a, b = original(self, layers, kind, encoded)
        return a, b * (1.01 if kind == "v_proj" else 1)

    monkeypatch.setattr(text2lora_peer.Peer, "deltas", wrong)
    with pytest.raises(AssertionError):
        text2lora.generation(SIZES, runs=1)


def test_a_step_has_a_row_for_each_reference():
    rows = text2lora.training(SIZES, runs=1)
    assert len({row["case"] for row in rows}) == 2
    for row in rows:
        assert set(row) >= KEYS
        assert row["ratio"] == row["reference"] / row["ours"]
    assert "over bound" in bench.table({"rows": rows})


def test_the_adapters_matter_to_what_is_compared():
    step = Step(SIZES)
    adapted = step.way("ours")()
    gradients = step.gradients("ours")
    assert set(gradients) == {"condition", *step.spec.names}
    assert all(bool(gradient.any()) for gradient in gradients.values())
    assert abs(float(adapted - step.way("bound")())) > 1e-3


def test_the_bound_takes_gradients_down_to_the_first_adapters(monkeypatch):
    reached = []
    original = text2lora_step._leaf

    def leaf(module, args, output):
        reached.append(original(module, args, output))
        return reached[-1]

    monkeypatch.setattr(text2lora_step, "_leaf", leaf)
    Step(SIZES).way("bound")()
    assert len(reached) == 2  # q_proj and v_proj of the first layer
    assert all(bool(output.grad.any()) for output in reached)


@pytest.mark.parametrize("wrong", ["output", "gradient"])
def test_steps_that_differ_are_noticed(monkeypatch, wrong):
    original = text2lora_peer._repeating

    def broken(a, b, scaling):
        if wrong == "output":
            return original(a, b, 1.5 * scaling)
        return original(a + (0.5 * a.detach() - 0.5 * a), b, scaling)  # the same numbers

    monkeypatch.setattr(text2lora_peer, "_repeating", broken)
    with pytest.raises(AssertionError):
        Step(SIZES).check()


def test_hooks_of_a_step_do_not_stay():
    step = Step(SIZES)
    before = step.way("bound")()
    for name in WAYS[1:3]:
        step.way(name)()
    assert torch.equal(step.way("bound")(), before)
    assert step.way("ours")() != before


def test_memory_of_a_process_is_reported(monkeypatch):
    peaks = dict(zip(WAYS, (110.0, 150.0, 130.0, 105.0), strict=True))
    peaks[text2lora_step.CHECKPOINTED] = 104.0
    peaks[text2lora_memory.BUILD] = 100.0
    monkeypatch.setattr(text2lora, "measure", lambda way, sizes: peaks[way])
    rows = text2lora.memory(SIZES)
    assert [row["ratio"] for row in rows] == [5.0, 3.0, 2.5]
    assert [row["over_bound"] for row in rows] == [2.0, 2.0, 0.8]
    assert all(row["metric"] == "MiB" for row in rows)
    assert "checkpointed" in rows[2]["case"]


def test_the_peak_is_the_process_s_own(capsys):
    before = text2lora_memory.peak_mib()
    block = torch.ones(1 << 24)  # 64 MiB
    assert text2lora_memory.peak_mib() >= before
    assert text2lora_memory.peak_mib() > block.nbytes / (1 << 20)
    text2lora_memory.main("ours", '{"layers": 1, "vocabulary": 64}')
    assert float(capsys.readouterr().out) > 64


def test_a_process_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RunError, match=r"memory of 'ours' failed: no message"):
        text2lora_memory.measure("ours", SIZES)


@pytest.mark.slow
def test_processes_of_their_own_are_measured():
    block = torch.ones(1 << 28)  # 1 GiB here, which must not count there
    peak = text2lora_memory.measure("ours", SIZES)
    assert 64 < peak < block.nbytes / (1 << 20)
    with pytest.raises(RunError, match=r"of 'wrong' failed: KeyError: 'wrong'"):
        text2lora_memory.measure("wrong", SIZES)


def test_every_part_is_run(monkeypatch):
    monkeypatch.setattr(text2lora, "generation", lambda sizes, runs: 1)
    monkeypatch.setattr(text2lora, "training", lambda sizes, runs: [2, 3])
    monkeypatch.setattr(text2lora, "memory", lambda sizes: [4])
    assert bench.run_benchmark("text2lora")["rows"] == [1, 2, 3, 4]
