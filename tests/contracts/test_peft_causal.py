"""Every method's export gives equal logits on causal language models, with random weights."""

from __future__ import annotations

import warnings

import pytest
import tiny
import torch
from torch import nn

from hypergen._utils.language_models import LanguageModel
from hypergen.serving import check_export
from hypergen.specs import LoRASpec, PeftSpec
from hypergen.targets import make_target
from hypergen.zoo.language.methods import method_spec

QV = ["q_proj", "v_proj"]
METHODS = {
    "lora": {"r": 2, "target_modules": QV},
    "lora_ranks": {
        "r": 2,
        "target_modules": QV,
        "rank_pattern": {"model.layers.1.self_attn.q_proj": 3},
    },
    "lora_rslora": {"r": 4, "target_modules": QV, "use_rslora": True},
    "lora_embedding": {"r": 2, "target_modules": ["embed_tokens", "q_proj"]},
    "dora": {"peft_type": "LORA", "r": 2, "target_modules": QV, "use_dora": True},
    "ia3": {
        "peft_type": "IA3",
        "target_modules": ["k_proj", "v_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
    },
    "vera": {"peft_type": "VERA", "r": 4, "target_modules": ["v_proj", "down_proj"]},
    "vblora": {
        "peft_type": "VBLORA",
        "r": 2,
        "target_modules": QV,
        "vector_length": 4,
        "num_vectors": 8,
        "topk": 2,
    },
    "randlora": {"peft_type": "RANDLORA", "r": 4, "target_modules": QV},
    "fourierft": {"peft_type": "FOURIERFT", "n_frequency": 10, "target_modules": QV},
    "prefix": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3},
    "prompt": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3},
    "layernorm": {"peft_type": "LN_TUNING", "target_modules": ["input_layernorm", "norm"]},
}
FUSED = {
    "gpt2": {"r": 2, "target_modules": ["c_attn", "wte"]},
    "gpt2_dora": {"peft_type": "LORA", "r": 2, "target_modules": ["c_attn"], "use_dora": True},
    "phi3": {"r": 2, "target_modules": ["qkv_proj", "gate_up_proj"]},
}


def phi3() -> nn.Module:
    """A random Phi-3, whose queries, keys and values come out of one module."""
    from transformers import Phi3Config, Phi3ForCausalLM

    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=19,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation="eager",
    )
    return Phi3ForCausalLM(config).eval()


def random_weights(spec):
    """Far from the start, where many methods do nothing."""
    draw = torch.Generator().manual_seed(3)
    noise = torch.randn(1, spec.numel, generator=draw)
    return spec.from_flat(spec.initial(1)[None] + 4 * noise * spec.per_entry("scale"))


def check(net: nn.Module, method: dict, folder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice on correct uses of it
        spec = method_spec(LanguageModel(net, None, "tiny", "causal"), method)
        target = make_target(net, spec)
    assert type(spec) is (PeftSpec if "peft_type" in method else LoRASpec)
    weights, inputs = random_weights(spec), tiny.batch("llama", 3)
    with torch.no_grad():
        ours, base = target(weights, inputs).logits, net(**inputs).logits
    assert (
        float((ours[:, -base.shape[1] :] - base).abs().max()) > 1e-3
    )  # a hundred times what may differ
    weights.save_pretrained(folder)
    assert check_export(weights, target, folder, inputs) < 1e-5


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_equal_through_stock_peft(method, tmp_path):
    check(tiny.make("llama"), METHODS[method], tmp_path / "adapter")


@pytest.mark.parametrize("method", sorted(FUSED))
def test_fused_modules_are_equal_through_stock_peft(method, tmp_path):
    net = phi3() if method == "phi3" else tiny.make("gpt2")
    check(net, FUSED[method], tmp_path / "adapter")
