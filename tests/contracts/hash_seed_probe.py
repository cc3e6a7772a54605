"""Prints digests of what must not depend on PYTHONHASHSEED; run by `test_hash_seeds.py`."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import matrix
import torch

from hypergen.conditions import HashingEncoder
from hypergen.specs import Weights

PAIRS = [
    ("mlp", "lora"),
    ("mlp_mip_hyperfan_in", "full_conv"),
    ("transformer_slot", "lora_llama"),
    ("t2l_L", "lora_gpt2"),
    ("t2l_M", "lora_rank_pattern"),
    ("t2l_S", "peft_dora"),
    ("mlp", "peft_vera"),
    ("transformer_group", "adapter"),
    ("weighted_updates", "lora_rank_pattern"),
    ("routed_free", "lora"),
    ("sg_lora", "delta"),
    ("zhyper_diag", "lora_llama"),
    ("shared_ranks", "lora_rank_pattern"),
    ("prompt_to_effect", "lora_gpt2"),
]
EXPORTED = ["lora", "lora_llama", "lora_embedding", "lora_rank_nested", "peft_dora", "peft_ia3"]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    torch.set_num_threads(1)
    out: dict[str, str] = {}
    for name, spec_name in PAIRS:
        weights = matrix.step(matrix.generator(name, spec_name)).generate(matrix.TEXTS, seed=5)
        out[f"weights {name} {spec_name}"] = digest(weights.flat().numpy().tobytes())
    for spec_name in matrix.SPECS:
        spec = matrix.spec(spec_name)
        out[f"spec {spec_name}"] = spec.fingerprint
        out[f"start {spec_name}"] = digest(spec.initial(0).numpy().tobytes())
    with tempfile.TemporaryDirectory() as folder:
        for spec_name in EXPORTED:
            spec = matrix.spec(spec_name)
            weights: Weights = spec.from_flat(spec.initial(1))
            weights.save_pretrained(Path(folder) / spec_name)
            for file in sorted((Path(folder) / spec_name).iterdir()):
                out[f"{file.name} {spec_name}"] = digest(file.read_bytes())
        matrix.generator("mlp", "lora").save_pretrained(Path(folder) / "generator")
        for file in sorted((Path(folder) / "generator").iterdir()):
            out[f"{file.name} generator"] = digest(file.read_bytes())
    out["hashing encoder"] = digest(HashingEncoder(32)(matrix.TEXTS).tokens.numpy().tobytes())
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
