"""What all generators share: generate, encode, abstain, loss, upload."""

from __future__ import annotations

import matrix
import pytest
import tiny
import torch

from hypergen.conditions import HashingEncoder, TaskEncoder
from hypergen.errors import ConditionError
from hypergen.generators import GainHead, Generator, MLPGenerator
from hypergen.specs import FullSpec, LoRASpec, Weights


class Noisy(Generator):
    """A sampled generator: the condition's mean plus noise from the given draw."""

    def __init__(self, spec, encoder):
        super().__init__(spec, encoder, {})
        self.size = torch.nn.Parameter(torch.ones(()))
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, condition):
        mean = self.drop(condition.pooled.mean(1, keepdim=True))
        return self.spec.from_flat(self.size * mean.expand(-1, self.spec.numel))

    def sample(self, condition, seeds):
        weights = self(condition)
        random = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(self.spec.numel, generator=g) for g in random])
        return self.spec.from_flat(weights.flat() + noise)


@pytest.fixture
def net():
    return matrix.stepped("mlp", "lora")


@pytest.fixture
def noisy():
    return Noisy(LoRASpec(tiny.model("mlp"), r=2), HashingEncoder(16))


def with_gain(net: MLPGenerator, known: list[str], gains: list[float]) -> MLPGenerator:
    net.gain = GainHead(net.encoder.dim, len(known))
    net.gain.fit(net.encode(text=known).pooled, torch.tensor(gains), torch.arange(len(known)))
    net.gain.log_sharpness.fill_(5.0)
    net.gain.log_prior_weight.fill_(-3.0)
    return net


def test_rows_are_ordered_input_by_input(noisy):
    w = noisy.generate(["a", "b"], n=3, seed=4)
    assert len(w) == 6
    for draw in range(3):
        one = noisy.generate(["a", "b"], seed=4 + draw)
        assert torch.equal(w[[draw, 3 + draw]].flat(), one.flat())


def test_the_seed_counts_and_repeats(noisy):
    w = noisy.generate("a", n=2, seed=1)
    assert torch.equal(w.flat(), noisy.generate("a", n=2, seed=1).flat())
    assert not torch.equal(w[0].flat(), w[1].flat())
    assert not torch.equal(w.flat(), noisy.generate("a", n=2, seed=9).flat())


def test_a_draw_does_not_depend_on_its_neighbours(noisy):
    together = noisy.generate(["a", "b is longer"], n=2, seed=1)
    alone = noisy.generate("b is longer", n=2, seed=1)
    torch.testing.assert_close(together[2:].flat(), alone.flat())


def test_generating_leaves_global_numbers_the_mode_and_the_graph(noisy):
    noisy.train()
    state = torch.get_rng_state()
    w = noisy.generate("a")
    assert torch.equal(torch.get_rng_state(), state)  # so no dropout was drawn
    assert noisy.training
    assert noisy.drop.training
    assert not w.flat().requires_grad


def test_provenance_names_what_was_asked(net):
    w = net.generate(text="is it even?")
    assert w.provenance["text"] == "is it even?"
    assert w.provenance["generator"] == "MLPGenerator"


def test_a_condition_or_raw_inputs(net):
    condition = net.encode(text=matrix.TEXTS)
    w = net.generate(condition=condition)
    assert torch.equal(w.flat(), net.generate(matrix.TEXTS).flat())
    with pytest.raises(ConditionError, match="not both"):
        net.generate("a", condition=condition)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "conditioned on text, but got nothing"),
        ({"demos": [1]}, "conditioned on text, but got demos"),
        ({"text": "a", "demos": [1]}, "conditioned on text, but got demos, text"),
        ({"text": " "}, "text 0 is empty"),
        ({"text": "a", "n": 0}, "n must be at least 1"),
        ({"text": "a", "abstain_below": 0.1}, "learnt no expected gain"),
    ],
)
def test_wrong_inputs_are_told(net, inputs, message):
    with pytest.raises(ConditionError, match=message):
        net.generate(**inputs)


def test_encoders_of_other_inputs_are_asked_by_their_name():
    net = MLPGenerator(LoRASpec(tiny.model("mlp"), r=2), TaskEncoder(3, 16), hidden=8, depth=1)
    assert len(net.generate(task=[0, 2])) == 2
    with pytest.raises(ConditionError, match="conditioned on task, but got text"):
        net.generate("a")


@pytest.mark.parametrize("spec_name", ["lora", "adapter", "delta", "peft_ia3", "peft_dora"])
def test_abstaining_returns_the_exact_base(spec_name, tmp_path):
    net = matrix.step(matrix.generator("mlp", spec_name))
    net = with_gain(net, ["say yes if even", "no"], [0.4, -0.2])
    base, target = matrix.SPECS[spec_name].model, matrix.target(spec_name)
    inputs = tiny.batch(base, 2)
    loaded = Generator.from_pretrained(net.save_pretrained(tmp_path / "g"))
    for one in (net, loaded):
        w = one.generate(["say yes if even", "no"], n=1, abstain_below=0.1)
        free = one.generate(["say yes if even", "no"])
        assert float(w.expected_gain[0]) > 0.3
        assert float(w.expected_gain[1]) == 0
        assert float(free.expected_gain[1]) < 0
        assert torch.equal(w[0].flat(), free[0].flat())
        with torch.no_grad():
            change = target(w[1], inputs) - target.base(inputs)
            assert float(change.abs().max()) <= (1e-6 if "dora" in spec_name else 0)
            assert not torch.equal(target(free[1], inputs), target.base(inputs))


def test_gains_follow_the_rows_of_each_input():
    net = with_gain(matrix.generator("mlp", "lora"), ["a b", "c d"], [0.4, 0.2])
    w = net.generate(["a b", "c d"], n=2)
    assert w.expected_gain.shape == (4,)
    assert torch.equal(w.expected_gain[0], w.expected_gain[1])
    assert float(w.expected_gain[0]) > float(w.expected_gain[2])


def test_whole_weights_have_no_base_to_return_to():
    net = MLPGenerator(FullSpec(tiny.model("mlp")), HashingEncoder(16), hidden=8, depth=1)
    net = with_gain(net, ["a"], [0.5])
    with pytest.raises(ValueError, match="no neutral weights"):
        net.generate("b", abstain_below=0.9)


def test_the_loss_hands_the_generated_weights_to_the_objective(net):
    seen = {}

    def objective(weights: Weights, batch) -> torch.Tensor:
        seen.update(weights=weights, batch=batch)
        return weights.flat().square().mean()

    loss = net.loss({"condition": matrix.condition(), "y": 3}, objective)
    assert loss.requires_grad
    assert len(seen["weights"]) == 3
    assert seen["batch"]["y"] == 3


def test_uploading_sends_the_saved_folder(net, monkeypatch):
    import huggingface_hub

    calls = []

    class Api:
        def __init__(self, token=None):
            calls.append(("token", token))

        def create_repo(self, repo_id, private, exist_ok):
            calls.append((repo_id, private, exist_ok))

        def upload_folder(self, repo_id, folder_path):
            calls.append(sorted(file.name for file in folder_path.iterdir()))
            return f"https://example.org/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert net.push_to_hub("me/mine", private=True, token="t").endswith("me/mine")
    assert calls == [
        ("token", "t"),
        ("me/mine", True, True),
        ["README.md", "generator.json", "generator.safetensors"],
    ]


def test_a_step_of_training_leaves_everything_finite_and_better():
    net, target = matrix.generator("mlp", "lora"), matrix.target("lora")
    x = tiny.batch("mlp", 24)
    y = torch.arange(24) // 8
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(target(net.train()(matrix.condition()), x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    net.eval()(matrix.condition()).check_finite()
    # Three conditions, one answer each: learnt through the frozen network.
    assert losses[-1] < 0.5 * losses[0]
