"""PeftSpec: any PEFT method, read off without touching the model."""

from __future__ import annotations

import json

import pytest
import tiny
import torch

from hypergen.errors import SpecError
from hypergen.specs import PeftSpec, WeightSpec
from hypergen.specs.peft import _IDENTITY_START
from hypergen.targets import make_target

# Method → (config class, options): all that start as the base by their stock initialisation.
FC = {"target_modules": ["fc1", "fc2"]}
STARTS: dict[str, tuple[str, dict]] = {
    "LORA": ("LoraConfig", {"r": 2, **FC}),
    "ADALORA": ("AdaLoraConfig", {"init_r": 2, "total_step": 10, **FC}),
    "IA3": ("IA3Config", {"feedforward_modules": [], **FC}),
    "LOHA": ("LoHaConfig", {"r": 2, **FC}),
    "LOKR": ("LoKrConfig", {"r": 2, **FC}),
    "OFT": ("OFTConfig", {"r": 0, "oft_block_size": 4, **FC}),
    "BOFT": ("BOFTConfig", {"boft_block_size": 4, **FC}),
    "VERA": ("VeraConfig", {"r": 2, **FC}),
    "FOURIERFT": ("FourierFTConfig", {"n_frequency": 5, "init_weights": True, **FC}),
    "HRA": ("HRAConfig", {"r": 2, **FC}),
    "LN_TUNING": ("LNTuningConfig", {"target_modules": ["norm"]}),
    "RANDLORA": ("RandLoraConfig", {"r": 2, **FC}),
    "MISS": ("MissConfig", {"r": 2, **FC}),
    "SHIRA": ("ShiraConfig", {"r": 2, **FC}),
    "ROAD": ("RoadConfig", {"group_size": 4, **FC}),
    "C3A": ("C3AConfig", {"block_size": 4, "init_weights": True, **FC}),
    "WAVEFT": ("WaveFTConfig", {"n_frequency": 5, "init_weights": True, **FC}),
    "DELORA": ("DeloraConfig", {"r": 2, **FC}),
    "GRALORA": ("GraloraConfig", {"r": 4, "gralora_k": 2, **FC}),
    "BONE": ("BoneConfig", {"r": 2, **FC}),
}


def config_of(name: str, options: dict):
    import peft

    if not hasattr(peft, name):
        pytest.skip(f"this PEFT has no {name}")
    return getattr(peft, name)(**options)


def test_every_method_that_claims_it_is_tested():
    assert set(STARTS) == _IDENTITY_START


@pytest.mark.parametrize("kind", STARTS)
def test_the_method_starts_as_the_base(kind):
    name, options = STARTS[kind]
    net = tiny.make("mlp_norm")
    spec = PeftSpec(net, config_of(name, options))
    assert spec.config["peft_config"]["peft_type"] == kind
    assert spec.is_additive
    target = make_target(net, spec)
    x = tiny.batch("mlp_norm", 4)
    with torch.no_grad():
        assert torch.allclose(target(spec.neutral(2), x), target.base(x), atol=1e-5)
        moved = spec.from_flat(spec.initial() + 0.2 * torch.randn(1, spec.numel))
        assert not torch.allclose(target(moved, x), target.base(x), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FourierFTConfig", {"n_frequency": 5, **FC}),  # PEFT's own default is random
        ("LoraConfig", {"r": 2, "init_lora_weights": False, **FC}),
        ("LoHaConfig", {"r": 2, "init_weights": False, **FC}),
    ],
)
def test_a_random_start_is_not_called_neutral(name, options):
    net = tiny.make("mlp")
    spec = PeftSpec(net, config_of(name, options))
    assert not spec.is_additive
    target, x = make_target(net, spec), tiny.batch("mlp", 4)
    with torch.no_grad():
        started = target(spec.from_flat(spec.initial()), x)
        assert not torch.allclose(started, target.base(x), atol=1e-4)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_methods_that_change_the_base_are_refused_and_the_base_is_whole(init):
    net = tiny.make("mlp")
    with pytest.raises(SpecError, match="changes the base's own weights"):
        PeftSpec(net, config_of("LoraConfig", {"r": 2, "init_lora_weights": init, **FC}))
    fresh = tiny.make("mlp").state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in net.state_dict().items())


def test_what_is_trained_but_not_saved_is_refused():
    config = config_of(
        "PrefixTuningConfig",
        {"num_virtual_tokens": 2, "prefix_projection": True, "task_type": "CAUSAL_LM"},
    )
    with pytest.raises(SpecError, match=r"PEFT trains .* but does not save it"):
        PeftSpec(tiny.make("llama"), config)


def test_what_peft_refuses_is_told_in_one_line():
    with pytest.raises(SpecError, match=r"PEFT cannot wrap MLP with LORA: .*fc9") as caught:
        PeftSpec(tiny.make("mlp"), config_of("LoraConfig", {"target_modules": ["fc9"]}))
    assert "\n" not in str(caught.value)


def test_requires_grad_and_the_module_tree_stay():
    net = tiny.make("mlp")
    net.fc1.weight.requires_grad_(False)
    before = [(n, type(m)) for n, m in net.named_modules()]
    PeftSpec(net, config_of("LoraConfig", {"r": 2, **FC}))
    assert [(n, type(m)) for n, m in net.named_modules()] == before
    assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["fc1.weight"]


def test_the_global_random_numbers_stay_and_the_seed_counts():
    net, config = tiny.make("mlp"), config_of("LoraConfig", {"r": 2, **FC})
    state = torch.get_rng_state()
    one = PeftSpec(net, config, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.initial(), PeftSpec(net, config, seed=3).initial())
    assert not torch.equal(one.initial(), PeftSpec(net, config, seed=4).initial())


def test_many_tensors_in_half_precision_are_told_apart():
    """bfloat16 holds integers to 256 only: more tensors than that must not be confused."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(160))).to(torch.bfloat16)
    config = config_of("LoraConfig", {"r": 1, "target_modules": r"\d+"})
    spec = PeftSpec(net, config)
    assert len(spec) == 320
    for slot in spec:
        assert slot.parameter.removeprefix("base_model.model.").replace(".default", "") == slot.name


def test_computed_starts_are_exact_and_drawn_ones_random():
    spec = PeftSpec(tiny.make("mlp"), config_of("LoraConfig", {"r": 2, "use_dora": True, **FC}))
    drawn = {slot.name.split(".", 1)[1]: slot.std > 0 for slot in spec}
    assert drawn == {
        "lora_A.weight": True,
        "lora_B.weight": False,
        "lora_magnitude_vector": False,
    }
    start = spec.unpack(spec.initial())["fc1.lora_magnitude_vector"]
    assert torch.allclose(start, tiny.model("mlp").fc1.weight.norm(dim=1), atol=1e-5)


def test_neutral_weights_need_the_exact_start():
    """A DoRA's magnitudes are the base's norms: their mean and spread do not bring them back."""
    net = tiny.make("mlp")
    spec = PeftSpec(net, config_of("LoraConfig", {"r": 2, "use_dora": True, **FC}))
    again = WeightSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    with pytest.raises(SpecError, match="make a PeftTarget"):
        again.neutral()
    make_target(net, again)
    assert torch.equal(again.neutral().flat(), spec.neutral().flat())
