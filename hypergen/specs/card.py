"""Model cards (README.md) of folders of generated weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypergen.specs.lora import LoRASpec
from hypergen.specs.peft import PeftSpec
from hypergen.specs.prefix import PrefixSpec
from hypergen.specs.weights import Weights

_PEFT_KINDS = (LoRASpec.kind, PrefixSpec.kind, PeftSpec.kind)
_CLASSES = {"CAUSAL_LM": "AutoModelForCausalLM", "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM"}
_HERE = "path/to/this/folder"
_SERVED_RANKS = (16, 32, 64, 128, 256, 320, 512)  # of vLLM's --max-lora-rank, from its default on


def adapter_card(weights: Weights) -> str:
    """The card of one network: what it is, what it was made from, how to load it, its limits."""
    is_peft = weights.spec.kind in _PEFT_KINDS
    lines = [
        *_front(weights, "peft" if is_peft else "hypergen", "adapter" if is_peft else None),
        *_origin(weights, "LoRA adapter" if weights.spec.kind == "lora" else "Weights"),
        f"- kind: `{weights.spec.kind}`, {len(weights.spec)} tensors, {weights.spec.numel:,} "
        "numbers",
        *_facts(weights),
    ]
    if is_peft:
        lines += ["", "## Load it", "", *_peft_code(weights), *_vllm_code(weights)]
    return "\n".join([*lines, "", *_limits(weights), ""])


def merged_card(weights: Weights) -> str:
    """The card of a base model that holds one network's updates."""
    kind = _CLASSES.get(weights.spec.config.get("task_type") or "", "AutoModelForCausalLM")
    lines = [
        *_front(weights, "transformers", "finetune"),
        *_origin(weights, "Model with a merged adapter"),
        f"- merged: `{weights.spec.kind}`, {weights.spec.numel:,} numbers",
        *_facts(weights),
        "",
        "## Load it",
        "",
        "```python",
        f"from transformers import {kind}",
        "",
        f'model = {kind}.from_pretrained("{_HERE}")',
        "```",
        "",
        "Servers take the folder as any other model: `vllm serve " + _HERE + "`.",
    ]
    return "\n".join([*lines, "", *_limits(weights, merged=True), ""])


def _front(weights: Weights, library: str, relation: str | None) -> list[str]:
    """The YAML that the hub reads."""
    name = weights.spec.config.get("base", {}).get("name")
    license = weights.provenance.get("license")
    return [
        "---",
        f"library_name: {library}",
        *([f"base_model: {name}"] if name else []),
        *([f"base_model_relation: {relation}"] if name and relation else []),
        *([f"license: {license}"] if license else []),
        "tags:",
        "- hypergen",
        *(["- lora"] if weights.spec.kind == "lora" else []),
        "---",
        "",
    ]


def _origin(weights: Weights, what: str) -> list[str]:
    """Title, the sentences, and how weights came of them."""
    given = weights.provenance.get("text")
    texts = [given] if isinstance(given, str) else list(given or [])
    made = weights.provenance.get("generator")
    by = f"a hypergen generator (`{made}`)" if made else "hypergen"
    source = {0: "", 1: " from a sentence"}.get(len(texts), " from sentences")
    lines = [f"# {what} generated{source}", ""]
    for text in texts:
        lines += [f"> {' '.join(text.split())}", ""]
    return [*lines, *_history(weights, by)]


def _history(weights: Weights, by: str) -> list[str]:
    """What was done to make the weights, in sentences."""
    combined = weights.provenance.get("combined")
    if combined is not None:
        return [
            f"Made by hypergen: combined from {len(combined['of'])} adapters "
            f"(`{combined['method']}`), without further training.",
            "",
        ]
    for key, what in (("refined", "weights"), ("searched", "condition")):
        tuned = weights.provenance.get(key)
        if tuned is not None:
            before, after = (sum(tuned[k]) / len(tuned[k]) for k in ("loss_before", "loss_after"))
            return [
                f"Made by {by}, then its {what} tuned on demonstrations of the task in "
                f"{tuned['steps']} steps: their loss went from {before:.3f} to {after:.3f}.",
                "",
            ]
    return [f"Made by {by} in one forward pass, without training on the task.", ""]


def _facts(weights: Weights) -> list[str]:
    """One line for each thing that is known."""
    spec, base = weights.spec, weights.spec.config.get("base", {})
    name = base.get("name") or base.get("class", "unknown")
    lines = [f"- base model: `{name}`, fingerprint `{(base.get('fingerprint') or 'unknown')[:16]}`"]
    if isinstance(spec, LoRASpec):
        ranks = sorted({spec.rank(module) for module in spec.modules})
        leaves = sorted({module.rpartition(".")[2] for module in spec.modules})
        scaling = ", rank-stabilised" if spec.config["use_rslora"] else ""
        lines.append(
            f"- rank {'/'.join(map(str, ranks))}, alpha {spec.config['alpha']:g}{scaling}, on "
            f"{len(spec.modules)} modules: {', '.join(f'`{leaf}`' for leaf in leaves)}"
        )
    if weights.expected_gain is not None:
        lines.append(f"- expected gain over the base: {float(weights.expected_gain[0]):.3f}")
    for key, value in sorted(weights.provenance.items()):
        if key != "text":  # quoted above
            lines.append(f"- {key}: {json.dumps(value, ensure_ascii=False, sort_keys=True)}")
    return lines


def _peft_code(weights: Weights) -> list[str]:
    base: Mapping[str, Any] = weights.spec.config.get("base", {})
    config = weights.spec.config.get("peft_config", weights.spec.config)
    kind = _CLASSES.get(config.get("task_type") or "", "AutoModel")
    if not base.get("name"):
        start = [f"base = ...  # the {base.get('class', 'model')} of the fingerprint above"]
    else:
        start = [
            f"from transformers import {kind}",
            "",
            f'base = {kind}.from_pretrained("{base["name"]}")',
        ]
    return [
        "```python",
        "from peft import PeftModel",
        *start,
        f'model = PeftModel.from_pretrained(base, "{_HERE}")',
        "```",
    ]


def _vllm_code(weights: Weights) -> list[str]:
    """How vLLM serves it, where it does: plain LoRA of one rank on a causal model with a name."""
    config, name = weights.spec.config, weights.spec.config.get("base", {}).get("name")
    if weights.spec.kind != "lora" or config["rank_pattern"] or not name:
        return []
    if config["task_type"] != "CAUSAL_LM" or config["r"] > _SERVED_RANKS[-1]:
        return []
    most = next(rank for rank in _SERVED_RANKS if rank >= config["r"])
    return [
        "",
        "```bash",
        f"vllm serve {name} --enable-lora --max-lora-rank {most} --lora-modules task={_HERE}",
        "```",
    ]


def _limits(weights: Weights, merged: bool = False) -> list[str]:
    gain = (
        "The gain over the base is the generator's own estimate"
        if weights.expected_gain is not None
        else "How much it gains over the base is not known"
    )
    lines = [
        "## Limits",
        "",
        f"- {gain}: measure it on examples of your own before you rely on it.",
    ]
    if merged:
        return lines
    return [
        *lines,
        "- It fits the base model of that fingerprint; another revision or quantisation of the "
        "same name gives other results.",
    ]
