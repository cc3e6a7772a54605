"""Two registries, specs and generators: every row of one is tested with every row of the other.

Adding a method to the contract = adding one row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import tiny
import torch
from torch import nn

from hypergen.conditions import (
    BaseWeightsEncoder,
    Condition,
    ConditionEncoder,
    HashingEncoder,
    WithBaseWeights,
)
from hypergen.generators import (
    DiffusionGenerator,
    GenerativeAdapter,
    Generator,
    KDEGenerator,
    LatentSkills,
    MLPGenerator,
    MultiTask,
    NearestExpert,
    PerceiverGenerator,
    PromptToEffect,
    RoutedExperts,
    SGLoRA,
    SharedPlusDelta,
    TextToLoRA,
    TransformerGenerator,
    WeightedExperts,
    ZhyperGenerator,
)
from hypergen.generators.diffusion.anchors import Anchors
from hypergen.generators.library import DescribedExperts, Experts
from hypergen.specs import (
    AdapterSpec,
    DeltaSpec,
    FullSpec,
    LoRASpec,
    PeftSpec,
    PrefixSpec,
    WeightSpec,
)
from hypergen.targets import Target, make_target


@dataclass(frozen=True)
class SpecRow:
    """One kind of emission.

    Attributes:
        model: Name of the base in `tiny.MODELS`.
        make: Base → spec.
        starts_as_base: Whether the start must be the unchanged base, to the last bit or (with
            a number) to rounding, for methods that compute the identity.
    """

    model: str
    make: Callable[[nn.Module], WeightSpec]
    starts_as_base: bool | float = True


def _peft(method: str, **options: Any) -> Callable[[nn.Module], WeightSpec]:
    def make(model: nn.Module) -> WeightSpec:
        import peft

        return PeftSpec(model, getattr(peft, method)(**options))

    return make


_FC = ["fc1", "fc2"]

SPECS: dict[str, SpecRow] = {
    "lora": SpecRow("mlp", lambda m: LoRASpec(m, "all-linear", r=2)),
    "lora_alpha": SpecRow("mlp", lambda m: LoRASpec(m, _FC, r=4, alpha=3.0)),
    "lora_rank_pattern": SpecRow(
        "mlp", lambda m: LoRASpec(m, "all-linear", r=2, alpha=5.0, rank_pattern={"fc2": 4})
    ),
    "lora_rank_nested": SpecRow(
        "nested", lambda m: LoRASpec(m, ["fc"], r=2, rank_pattern={"fc": 3})
    ),
    "lora_rslora": SpecRow("mlp", lambda m: LoRASpec(m, _FC, r=4, use_rslora=True)),
    "lora_embedding": SpecRow("tagger", lambda m: LoRASpec(m, ["embed", "fc1"], r=2)),
    "lora_llama": SpecRow("llama", lambda m: LoRASpec(m, "all-linear", r=2, task_type="CAUSAL_LM")),
    "lora_gpt2": SpecRow(
        "gpt2", lambda m: LoRASpec(m, ["c_attn", "c_fc", "c_proj"], r=2, task_type="CAUSAL_LM")
    ),
    "full_mlp": SpecRow("mlp", lambda m: FullSpec(m), False),
    "full_conv": SpecRow("conv", lambda m: FullSpec(m), False),
    "full_tied": SpecRow("tied", lambda m: FullSpec(m), False),
    "delta": SpecRow("mlp_norm", lambda m: DeltaSpec(m)),
    "delta_tied": SpecRow("tied", lambda m: DeltaSpec(m)),
    "adapter": SpecRow("mlp", lambda m: AdapterSpec(m, [*_FC, "out"], 3, "gelu")),
    "prefix_llama": SpecRow("llama", lambda m: PrefixSpec(m, num_virtual_tokens=3), False),
    "peft_lora": SpecRow("mlp", _peft("LoraConfig", r=2, target_modules=_FC)),
    "peft_dora": SpecRow("mlp", _peft("LoraConfig", r=2, target_modules=_FC, use_dora=True), 1e-6),
    "peft_ia3": SpecRow("mlp", _peft("IA3Config", target_modules=_FC, feedforward_modules=["fc2"])),
    "peft_vera": SpecRow("mlp", _peft("VeraConfig", r=4, target_modules=_FC)),
    "peft_vblora": SpecRow(
        "mlp_wide",
        _peft("VBLoRAConfig", r=2, target_modules=_FC, vector_length=4, num_vectors=8, topk=2),
        False,
    ),
    "peft_randlora": SpecRow("mlp", _peft("RandLoraConfig", r=4, target_modules=_FC)),
    "peft_fourierft": SpecRow(
        "mlp", _peft("FourierFTConfig", n_frequency=10, target_modules=_FC), False
    ),
    "peft_fourierft_zero": SpecRow(
        "mlp", _peft("FourierFTConfig", n_frequency=10, target_modules=_FC, init_weights=True)
    ),
    "peft_ln": SpecRow("mlp_norm", _peft("LNTuningConfig", target_modules=["norm"])),
    "peft_oft": SpecRow("mlp", _peft("OFTConfig", oft_block_size=4, r=0, target_modules=_FC)),
    "peft_loha": SpecRow("mlp", _peft("LoHaConfig", r=2, target_modules=_FC)),
    "peft_lokr": SpecRow("mlp", _peft("LoKrConfig", r=2, target_modules=_FC)),
    "peft_prefix": SpecRow(
        "llama", _peft("PrefixTuningConfig", num_virtual_tokens=3, task_type="CAUSAL_LM"), False
    ),
    "peft_prompt": SpecRow(
        "llama", _peft("PromptTuningConfig", num_virtual_tokens=3, task_type="CAUSAL_LM"), False
    ),
}

_MLP = {"hidden": 16, "depth": 1}
_TRANSFORMER = {"dim": 16, "depth": 1, "heads": 2, "most_rows": 4}
_PERCEIVER = {"latents": 3, "dim": 8, "heads": 2, "hidden": 16, "depth": 1}
_T2L = {"hidden": 16, "depth": 1}
_RPG = {"width": 8, "layers": 1, "heads": 2, "hidden": 16, "depth": 1}

GENERATORS: dict[str, tuple[type[Generator], dict[str, Any]]] = {
    "mlp": (MLPGenerator, _MLP),
    "mlp_none_forward": (MLPGenerator, {**_MLP, "input_encoding": "none", "init": "forward"}),
    "mlp_mip_hyperfan_in": (MLPGenerator, {**_MLP, "input_encoding": "mip", "init": "hyperfan_in"}),
    "mlp_squash_hyperfan_out": (
        MLPGenerator,
        {**_MLP, "input_encoding": "mip_squash", "init": "hyperfan_out"},
    ),
    "transformer_group": (TransformerGenerator, {**_TRANSFORMER, "share": "group"}),
    "transformer_group_forward": (
        TransformerGenerator,
        {**_TRANSFORMER, "share": "group", "init": "forward"},
    ),
    "transformer_slot": (TransformerGenerator, {**_TRANSFORMER, "share": "slot"}),
    "transformer_row_hyperfan_in": (
        TransformerGenerator,
        {**_TRANSFORMER, "share": "row", "init": "hyperfan_in"},
    ),
    "perceiver": (PerceiverGenerator, _PERCEIVER),
    "perceiver_gated_forward": (
        PerceiverGenerator,
        {**_PERCEIVER, "gated": True, "init": "forward"},
    ),
    "t2l_L": (TextToLoRA, {**_T2L, "size": "L"}),
    "t2l_L_forward": (TextToLoRA, {**_T2L, "size": "L", "init": "forward"}),
    "t2l_M": (TextToLoRA, {**_T2L, "size": "M"}),
    "t2l_M_hyperfan_in": (TextToLoRA, {**_T2L, "size": "M", "init": "hyperfan_in"}),
    "t2l_S": (TextToLoRA, {**_T2L, "size": "S"}),
    "t2l_S_forward": (TextToLoRA, {**_T2L, "size": "S", "init": "forward"}),
    "zhyper_diag": (ZhyperGenerator, _MLP),
    "zhyper_full_shared": (ZhyperGenerator, {**_MLP, "mix": "full", "start": "shared"}),
    "shared_add": (
        SharedPlusDelta,
        {"generator": "MLPGenerator", "generator_args": _MLP, "gate": "open"},
    ),
    "shared_ranks": (
        SharedPlusDelta,
        {"generator": "TextToLoRA", "generator_args": _T2L, "combine": "ranks"},
    ),
    "prompt_to_effect": (PromptToEffect, {**_TRANSFORMER, "share": "group"}),
    "multitask": (MultiTask, {}),
    # Enough of them, and sharp enough, for one step to take skills that start alike apart.
    "skills": (LatentSkills, {"skills": 12, "temperature": 0.03}),
    "nearest": (NearestExpert, {}),
    "weighted": (WeightedExperts, {"top_k": 3, "temperature": 0.2}),
    "weighted_updates": (WeightedExperts, {"mix": "updates", "top_k": 2, "temperature": 0.2}),
    "routed": (RoutedExperts, {"hidden": 8, "temperature": 0.2}),
    "routed_free": (
        RoutedExperts,
        {"hidden": 8, "temperature": 0.2, "blocks": "slot", "coefficients": "free"},
    ),
    "generative_adapter": (GenerativeAdapter, {"state_rank": 8}),
    "generative_adapter_frobenius": (
        GenerativeAdapter,
        {"state_rank": 8, "normalization": "frobenius"},
    ),
    "sg_lora": (SGLoRA, {"latent": 3, "hidden": 16, "top_k": 2, "temperature": 0.2}),
    "rpg": (
        DiffusionGenerator,
        {
            "codec": {"name": "TokenCodec", "size": 16},
            "denoiser": {"name": "RecurrentDenoiser", **_RPG},
            "process": {"name": "Diffusion", "prediction": "data", "sampler": "ddim", "steps": 2},
        },
    ),
    "sequence_codec": (
        DiffusionGenerator,
        {
            "codec": {"name": "SequenceCodec", "latent": 4, "dim": 8, "depth": 1, "heads": 1},
            "denoiser": {"name": "RecurrentDenoiser", **_RPG},
            "process": {"name": "Diffusion", "prediction": "data", "sampler": "ddim", "steps": 2},
        },
    ),
    "lora_codec": (
        DiffusionGenerator,
        {
            "codec": {"name": "LoRACodec", "latent": 4, "dim": 8, "depth": 1, "heads": 1},
            "denoiser": {"name": "RecurrentDenoiser", **_RPG},
            "process": {"name": "Diffusion", "prediction": "data", "sampler": "ddim", "steps": 2},
        },
    ),
    "conv_codec": (
        DiffusionGenerator,
        {
            "codec": {"name": "ConvCodec", "tokens": 3, "latent": 8, "channels": [4, 4]},
            "denoiser": {"name": "RecurrentDenoiser", **_RPG},
            "process": {"name": "Diffusion", "prediction": "data", "sampler": "ddim", "steps": 2},
        },
    ),
    "dit": (
        DiffusionGenerator,
        {
            "codec": {"name": "TokenCodec", "size": 16, "by": "channel"},
            "denoiser": {"name": "DiT", "width": 16, "depth": 1, "heads": 2},
            "process": {"name": "Diffusion", "prediction": "data", "sampler": "dpm++", "steps": 3},
            "guidance": 1.5,
        },
    ),
    "pca_mlp_flow": (
        DiffusionGenerator,
        {
            "codec": {"name": "PCACodec", "components": 0.999},
            "denoiser": {"name": "MLPDenoiser", "hidden": 16, "time_dim": 8},
            "process": {"name": "FlowMatching", "prediction": "data", "steps": 2},
        },
    ),
    "conv_flow": (
        DiffusionGenerator,
        {
            "codec": {"name": "TokenCodec", "size": 32, "by": "flat", "normalize": "slot"},
            "denoiser": {"name": "ConvDenoiser", "channels": [4, 8], "time_dim": 8},
            "process": {
                "name": "FlowMatching",
                "prediction": "data",
                "sampler": "euler",
                "steps": 2,
            },
        },
    ),
    "kde": (
        KDEGenerator,
        {"codec": {"name": "TokenCodec", "size": 16}, "nearest": 1, "bandwidth": 0.0},
    ),
}

# Generators that are not for every spec: beginnings of the names of those that they are for.
ONLY: dict[str, tuple[str, ...]] = {
    "zhyper_diag": ("lora", "peft_lora"),
    "zhyper_full_shared": ("lora", "peft_lora"),
    "shared_ranks": ("lora",),
    "weighted_updates": ("lora",),
    "generative_adapter": ("lora",),
    "generative_adapter_frobenius": ("lora",),
    "prompt_to_effect": ("lora", "full_mlp", "delta_tied", "peft_lora", "peft_ia3"),
    # What an autoencoder that is not trained makes of zeros is no base model.
    "sequence_codec": ("full_mlp", "full_conv"),
    "lora_codec": ("lora_alpha", "lora_gpt2"),
    "conv_codec": ("full_mlp", "full_tied"),
    "kde": ("lora_alpha", "full_conv", "delta", "peft_vblora"),
    "dit": ("lora_alpha", "lora_gpt2", "full_conv", "full_tied", "delta", "prefix", "peft_dora"),
    "pca_mlp_flow": ("lora_llama", "full_mlp", "delta_tied", "peft_ia3"),
    "conv_flow": ("full_mlp", "delta_tied", "adapter"),
}
# Roles of the slots that a generator fills alike for every condition.
ALIKE: dict[str, tuple[str, ...]] = {"zhyper_diag": ("lora_A",), "zhyper_full_shared": ("lora_A",)}
# A generative adapter that truncates nothing learns B, and generates A.
ALIKE |= dict.fromkeys(("generative_adapter", "generative_adapter_frobenius"), ("lora_B",))

# Generators that say the same to every condition.
SAME = ("multitask",)
# Generators whose output does not vary with the numbers of a condition, or not differentiably.
CONSTANT = ("multitask", "nearest", "weighted_updates", "kde")
# Generators whose autoencoder makes something of zeros before it is trained.
AUTOENCODED = ("lora_codec",)
# Generators that start as a mean of their experts, entry by entry or of the updates.
MEANS = (
    "nearest",
    "weighted",
    "weighted_updates",
    "routed",
    "routed_free",
    "sg_lora",
    "kde",
    "pca_mlp_flow",
)

PAIRS = [(g, s) for s in SPECS for g in GENERATORS if s.startswith(ONLY.get(g, ("",)))]

TEXTS = ["say yes if even", "no", "is it one of three, five or seven?"]


@cache
def spec(name: str) -> WeightSpec:
    """A spec of the matrix; its base is left as it was."""
    row = SPECS[name]
    return row.make(tiny.model(row.model))


@cache
def target(name: str) -> Target:
    """The target of a spec of the matrix, on the shared base."""
    return make_target(tiny.model(SPECS[name].model), spec(name))


@cache
def encoder() -> HashingEncoder:
    """The encoder of all generators of the matrix."""
    return HashingEncoder(16)


@cache
def condition() -> Condition:
    """Three texts of different lengths."""
    return encoder()(TEXTS)


def generator(name: str, spec_name: str, seed: int = 0) -> Generator:
    """A fresh generator, the same at every call."""
    cls, options = GENERATORS[name]
    reader: ConditionEncoder = encoder()
    if cls is PromptToEffect:
        modules = list(dict.fromkeys(_owner(slot.module) for slot in spec(spec_name)))
        base = tiny.model(SPECS[spec_name].model)
        reader = WithBaseWeights(reader, BaseWeightsEncoder.from_model(base, modules, sketch=3))
    torch.manual_seed(seed)
    net = cls(spec(spec_name), reader, **options).eval()
    if isinstance(net, DescribedExperts):
        net.fill(experts(spec_name))
    if isinstance(net, DiffusionGenerator) and not net.codec.sized:
        flat = experts(spec_name).weights.flat()
        net.prepare(SimpleNamespace(training_weights=lambda: flat))
    if isinstance(net, KDEGenerator):
        known = experts(spec_name)
        first = torch.arange(len(known.weights)) * 2  # of two descriptions each
        net.fill(Anchors(known.weights.flat, known.pooled[first]))
    return net


@cache
def experts(spec_name: str) -> Experts:
    """Four networks near the start of a spec, with two descriptions each."""
    own, draw = spec(spec_name), torch.Generator().manual_seed(0)
    start = torch.stack([own.initial(seed) for seed in range(4)])
    noise = torch.randn(start.shape, generator=draw) * own.per_entry("scale")
    texts = [[text, f"{text} or so"] for text in (*TEXTS, "all of them")]
    return Experts.encode(own.from_flat(start + 0.1 * noise), texts, encoder())


def _owner(module: str) -> str:
    """The base's own module around one that PEFT has put into it."""
    return module.partition(".lora_")[0].partition(".ia3_")[0]


def step(net: Generator, learning_rate: float = 3e-2) -> Generator:
    """One optimiser step of every parameter, on a random linear function of the weights.

    Heads that start at exactly zero pass no gradient on to the trunk (the derivative of W f by f
    is W = 0), and a LoRA whose B is zero none to A. One step in the space of the weights moves
    every head off zero, so that what depends on the condition can be seen.
    """
    if not list(net.parameters()):
        return net.eval()
    weights = net.train()(condition())
    draw = torch.Generator().manual_seed(1)
    loss = sum((group * torch.randn(group.shape, generator=draw)).sum() for group in weights.groups)
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return net.eval()


@cache
def stepped(name: str, spec_name: str) -> Generator:
    """The shared copy of a generator after one step, for tests that leave it as it is."""
    return step(generator(name, spec_name))
