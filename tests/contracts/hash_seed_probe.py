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


def text_run() -> dict[str, str]:
    """Batches, splits and one exported adapter of a run on text."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import tiny_language

    from hypergen.training.language import LanguageDataModule

    out: dict[str, str] = {}
    for make, modules in (("causal", ["v_proj", "q_proj"]), ("t5", ["wo", "v", "q"])):
        with tempfile.TemporaryDirectory() as folder:
            made = getattr(tiny_language, make)()
            made.model.save_pretrained(Path(folder) / "model")
            made.tokenizer.save_pretrained(Path(folder) / "model")
            data = LanguageDataModule(
                str(Path(folder) / "model"),
                str(tiny_language.all_tasks(Path(folder) / "tasks")),
                heldout_families=0.3,
                val_families=[],
                encoder="hashing",
                method={"r": 2, "target_modules": modules},
                prompt={"description": True},
                augment={"per_task": 2},
                max_length=64,
                tasks_per_batch=4,
                description_dropout=0.5,
            )
            for name, value in next(iter(data.train_dataloader()))["inputs"].items():
                if isinstance(value, torch.Tensor):
                    out[f"batch {make} {name}"] = digest(value.numpy().tobytes())
            out[f"splits {make}"] = json.dumps([data.suite.names, data.suite.task_splits])
            out[f"spec {make}"] = json.dumps(data.spec.names)
            torch.manual_seed(0)
            generator = matrix.TextToLoRA(data.spec, data.encoder, **matrix.GENERATORS["t2l_M"][1])
            weights = generator.generate("say it again")
            out[f"weights {make}"] = digest(weights.flat().numpy().tobytes())
            weights.provenance = {}
            # The name of the base is in the file, and the folder's is another each time.
            data.spec.config["base"]["name"] = "tiny"
            weights.save_pretrained(Path(folder) / "adapter")
            file = Path(folder) / "adapter" / "adapter_model.safetensors"
            out[f"adapter {make}"] = digest(file.read_bytes())
    return out


def architecture_run() -> dict[str, str]:
    """Weights of one architecture from its graph."""
    from hypergen.conditions.graph import trace
    from hypergen.conditions.graph.examples import EXAMPLES
    from hypergen.generators import GraphHypernetwork

    graph = trace(EXAMPLES["resnet"]())
    out = {"graph": graph.hash}
    for encoder, decoder in (("gated", "tiling"), ("transformer", "low_rank")):
        torch.manual_seed(0)
        made = GraphHypernetwork({"name": encoder, "dim": 16}, {"name": decoder})(graph)[0]
        out[f"weights {encoder} {decoder}"] = digest(made.flat().detach().numpy().tobytes())
    return out


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
    out |= text_run()
    out |= architecture_run()
    out["hashing encoder"] = digest(HashingEncoder(32)(matrix.TEXTS).tokens.numpy().tobytes())
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
