"""The table of every system that hypergen contains or is to contain, one row a system.

`hypergen.methods` prints it. A new method adds its `code` and `recipe` here and then runs
`python -m hypergen.methods`, which writes `configs/README.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["available", "planned"]

CATEGORIES = {
    "adapters": "Condition → adapters for a frozen language model or encoder",
    "sampled": "Diffusion and other sampled decoders",
    "graphs": "Architecture graph → full weights",
    "hypernetworks": "Hypernetworks proper",
}


@dataclass(frozen=True)
class Paper:
    """One published work.

    Attributes:
        name: Name of the method.
        year: Year of its first publication.
        arxiv: Its arXiv identifier; None where there is none or it is not known.
    """

    name: str
    year: int
    arxiv: str | None = None


@dataclass(frozen=True)
class System:
    """One row of the table.

    Attributes:
        id: Short identifier, a letter for the category and a number.
        category: Key of `CATEGORIES`.
        maps: What goes in and what comes out.
        papers: The published works it covers.
        status: "available" once it has code and tests, else "planned".
        recipe: Path of the recipe that trains it, from the repository's root.
        code: Path of the module that implements it, from the repository's root.
    """

    id: str
    category: str
    maps: str
    papers: tuple[Paper, ...]
    status: Status = "planned"
    recipe: str | None = None
    code: str | None = None

    @property
    def name(self) -> str:
        """The names of the papers, joined by commas."""
        return ", ".join(paper.name for paper in self.papers)


SYSTEMS: tuple[System, ...] = (
    System(
        "A1",
        "adapters",
        "few-shot demonstrations → LoRA or soft prefixes",
        (Paper("HyperTuning (HyperT5)", 2022, "2211.12485"),),
        status="available",
        recipe="configs/hypertuning_smollm2.yaml",
        code="hypergen/conditions/demos.py",
    ),
    System(
        "A2",
        "adapters",
        "long document, streamed in chunks → LoRA in one pass",
        (Paper("Generative Adapter", 2024, "2411.05877"),),
        status="available",
        recipe="configs/generative_adapter_smollm2.yaml",
        code="hypergen/generators/fast_weights",
    ),
    System(
        "A3",
        "adapters",
        "task text → LoRA",
        (Paper("Text-to-LoRA", 2025, "2506.06105"),),
        status="available",
        recipe="configs/text2lora_l.yaml",
        code="hypergen/generators/hyper/text_to_lora.py",
    ),
    System(
        "A3b",
        "adapters",
        "task text, and the base weights themselves → LoRA",
        (
            Paper("HINT (planned)", 2022, "2212.10315"),
            Paper("Zhyper", 2025, "2510.19733"),
            Paper("LoRAGen (planned)", 2025),
            Paper("Prompt2Effect", 2026, "2606.13971"),
        ),
        status="available",
        recipe="configs/zhyper.yaml",
        code="hypergen/generators/hyper/zhyper.py",
    ),
    System(
        "A4",
        "adapters",
        "task, layer and position → bottleneck adapters and layer-norm scales",
        (Paper("HyperFormer", 2021, "2106.04489"),),
    ),
    System(
        "A5",
        "adapters",
        "language and layer → bottleneck adapters",
        (Paper("Hyper-Adapters", 2022, "2205.10835"),),
    ),
    System(
        "A6",
        "adapters",
        "task → adapters in a hierarchical vision model",
        (Paper("Polyhistor", 2022, "2210.03265"),),
    ),
    System(
        "A7",
        "adapters",
        "task text and expert LoRAs → LoRA, sampled",
        (Paper("SG-LoRA", 2025, "2509.10535"),),
        status="available",
        recipe="configs/sg_lora.yaml",
        code="hypergen/generators/sg_lora.py",
    ),
    System(
        "A8",
        "adapters",
        "instruction → soft prompts for each layer",
        (Paper("IAPT", 2024, "2405.18203"),),
    ),
    System(
        "A9",
        "adapters",
        "any condition → the tensors of any PEFT method",
        (
            Paper("Compacter (planned)", 2021, "2106.04647"),  # PEFT does not have it
            Paper("IA³", 2022, "2205.05638"),
            Paper("NOLA (planned)", 2023, "2310.02556"),  # nor this
            Paper("VeRA", 2023, "2310.11454"),
            Paper("FourierFT", 2024, "2405.03003"),
            Paper("VB-LoRA", 2024, "2405.15179"),
            Paper("RandLoRA", 2025, "2502.00987"),
        ),
        status="available",
        code="hypergen/specs/peft.py",
    ),
    System(
        "A10",
        "adapters",
        "library of adapters or checkpoints → one",
        (
            Paper("Fisher merging (planned)", 2021, "2111.09832"),
            Paper("Poly", 2022, "2202.13914"),
            Paper("MHR (planned)", 2022, "2211.03831"),
            Paper("task arithmetic", 2022, "2212.04089"),
            Paper("TIES", 2023, "2306.01708"),
            Paper("ScaLearn (planned)", 2023, "2310.01217"),
            Paper("DARE", 2023, "2311.03099"),
            Paper("Arrow", 2024, "2405.11157"),
            Paper("PLeaS (planned)", 2024, "2407.02447"),
            Paper("aTLAS", 2024, "2407.02880"),
        ),
        status="available",
        recipe="configs/routed_experts.yaml",
        code="hypergen/generators/library",
    ),
    System(
        "A11",
        "adapters",
        "adapter or training trajectory for one base → for another base",
        (
            Paper("learning-trajectory transfer", 2023, "2305.14122"),
            Paper("Trans-LoRA", 2024, "2405.17258"),
            Paper("PortLLM", 2024, "2410.10870"),
        ),
    ),
    System(
        "B1",
        "sampled",
        "noise → (subsets of) weights, by latent diffusion",
        (Paper("p-diff", 2024, "2402.13144"),),
        status="available",
        recipe="configs/p_diff.yaml",
        code="hypergen/generators/diffusion/generator.py",
    ),
    System(
        "B2",
        "sampled",
        "task text or example style → LoRA and vision weights, by latent diffusion",
        (Paper("COND P-DIFF", 2024, "2408.01415"),),
        status="available",
        recipe="configs/cond_p_diff.yaml",
        code="hypergen/generators/diffusion/dit.py",
    ),
    System(
        "B3",
        "sampled",
        "condition → whole networks, by recurrent diffusion over weight tokens",
        (Paper("RPG", 2025, "2501.11587"),),
        status="available",
        recipe="configs/rpg.yaml",
        code="hypergen/generators/diffusion/recurrent.py",
    ),
    System(
        "B4",
        "sampled",
        "current weights, current loss and wanted loss → weights",
        (Paper("G.pt", 2022, "2209.12892"),),
        status="available",
        recipe="configs/g_pt.yaml",
        code="hypergen/generators/diffusion/g_pt.py",
    ),
    System(
        "B5",
        "sampled",
        "weights → embedding → weights, by density estimation or diffusion",
        (
            Paper("hyper-representations", 2022, "2209.14733"),
            Paper("HyperDiffusion", 2023, "2303.17015"),
            Paper("D2NWG", 2024, "2402.18153"),
            Paper("SANE", 2024, "2406.09997"),
        ),
        status="available",
        recipe="configs/sane.yaml",
        code="hypergen/generators/diffusion/density.py",
    ),
    System(
        "B6",
        "sampled",
        "noise → whole networks, by flow matching on canonical weights",
        (Paper("DeepWeightFlow", 2026, "2601.05052"),),
        status="available",
        recipe="configs/deep_weight_flow.yaml",
        code="hypergen/generators/diffusion/flow_matching.py",
    ),
    System(
        "C1",
        "graphs",
        "architecture graph → all weights",
        (Paper("GHN-2", 2021, "2110.13100"),),
        status="available",
        recipe="configs/ghn2_cifar.yaml",
        code="hypergen/generators/graph",
    ),
    System(
        "C2",
        "graphs",
        "architecture graph → all weights, by a graph transformer",
        (Paper("GHN-3", 2023, "2303.04143"),),
        status="available",
        recipe="configs/ghn3_cifar.yaml",
        code="hypergen/generators/graph",
    ),
    System(
        "C3",
        "graphs",
        "architecture graph → weights of very wide layers, by low-rank decoding",
        (Paper("LoGAH", 2024, "2405.16287"),),
        status="available",
        recipe="configs/loga_char_lm.yaml",
        code="hypergen/generators/graph/low_rank.py",
    ),
    System(
        "C4",
        "graphs",
        "trained weights → graph → embedding, equivariant to permutations",
        (
            Paper("graph metanetworks", 2023, "2312.04501"),
            Paper("neural graphs", 2024, "2403.12143"),
        ),
    ),
    System(
        "C5",
        "graphs",
        "recent weights of a training run → future weights",
        (Paper("NiNo", 2024, "2409.04434"),),
    ),
    System(
        "C6",
        "graphs",
        "any PyTorch module → graph, with a coverage report",
        (),
        status="available",
        code="hypergen/conditions/graph/trace.py",
    ),
    System(
        "D1",
        "hypernetworks",
        "layer codes → kernels; recurrent state → scales of recurrent weights",
        (Paper("HyperNetworks (static, HyperLSTM)", 2016, "1609.09106"),),
    ),
    System(
        "D2",
        "hypernetworks",
        "any condition → weights, with stable inputs and variance-correct initialisation",
        (Paper("hyperfan", 2020, "2312.08399"), Paper("MIP", 2023, "2304.07645")),
        status="available",
        recipe="configs/digits_mlp.yaml",
        code="hypergen/generators/hyper",
    ),
    System(
        "D3",
        "hypernetworks",
        "task code → weights, for continual learning",
        (
            Paper("continual-learning hypernetworks", 2019, "1906.00695"),
            Paper("dependency-preserving hypernetworks", 2022, "2209.07712"),
        ),
    ),
    System(
        "D4",
        "hypernetworks",
        "interval around a task code or an input → bounds with certificates",
        (Paper("HyperInterval", 2024, "2405.15444"), Paper("SHIELD", 2025, "2506.08255")),
    ),
    System(
        "D5",
        "hypernetworks",
        "private client code → weights; clients share the hypernetwork alone",
        (Paper("HyperFL", 2024, "2412.07187"),),
    ),
    System(
        "D6",
        "hypernetworks",
        "hyperparameters → weights, tuned while training",
        (
            Paper("stochastic hyperparameter optimisation", 2018, "1802.09419"),
            Paper("Self-Tuning Networks", 2019, "1903.03088"),
        ),
    ),
    System(
        "D7",
        "hypernetworks",
        "preference among objectives → weights",
        (
            Paper("Pareto HyperNetworks", 2020, "2010.04104"),
            Paper("Pareto manifold learning", 2022, "2210.09759"),
            Paper("PaLoRA", 2024, "2407.08056"),
        ),
    ),
    System(
        "D8",
        "hypernetworks",
        "code → sum of template weights",
        (Paper("modular hypernetworks", 2023, "2312.15001"),),
    ),
    System(
        "D9",
        "hypernetworks",
        "any parameter budget → any network",
        (Paper("NPAS (Shapeshifter Networks)", 2020, "2006.10598"),),
    ),
    System(
        "D10",
        "hypernetworks",
        "few examples → condition or weights, searched at test time",
        (Paper("latent program search", 2024, "2411.08706"),),
        status="available",
        code="hypergen/zoo/tuning.py",
    ),
)
