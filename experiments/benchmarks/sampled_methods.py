"""A table of methods that sample weights: how good their networks are, and whether they are new.

    python experiments/benchmarks/sampled_methods.py            # the table of what is trained
    python experiments/benchmarks/sampled_methods.py --train    # trains what is missing first
    python experiments/benchmarks/sampled_methods.py --train --only sane p_diff --json table.json

Run it from the repository's root. Every row is one recipe of `configs/` on a zoo of `runs/`; runs go
to `runs/sampled/NAME`, audits to `runs/sampled/NAME/audit.json`. Both are made once: delete a folder
to make it again. Training runs in a process of its own, and its wall time is kept in the run folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNS = Path("runs/sampled")


@dataclass(frozen=True)
class Row:
    """One method on one zoo.

    Attributes:
        name: Of the row and its run folder.
        method: What the table calls it.
        recipe: Name of the file in `configs/`.
        zoo: Recipe of the zoo, in `configs/`, and the options that it is built with.
        options: Options that replace those of the recipe.
    """

    name: str
    method: str
    recipe: str
    zoo: tuple[str, ...]
    options: tuple[str, ...] = ()


MLP = ("zoo_digits_mlp",)
SUBSETS = ("zoo_digits_subsets",)
IMAGES = ("zoo_mnist_inr", "--shared_start=true", "--out=runs/zoo_mnist_inr_shared")

ROWS = (
    Row("p_diff", "p-diff", "p_diff", MLP),
    Row("sane", "SANE + KDE", "sane", MLP),
    Row("deep_weight_flow", "DeepWeightFlow", "deep_weight_flow", MLP),
    Row("from_zoo", "Perceiver (regression)", "from_zoo", SUBSETS),
    Row("cond_p_diff", "COND P-DIFF", "cond_p_diff", SUBSETS),
    # Fewer steps than the recipes: half an hour for the table instead of hours.
    Row("d2nwg", "D2NWG", "d2nwg", SUBSETS, ("--trainer.max_steps=3000",)),
    Row("rpg", "RPG", "rpg", SUBSETS),
    Row(
        "hyper_diffusion",
        "HyperDiffusion",
        "hyper_diffusion",
        IMAGES,
        ("--trainer.max_steps=2000",),
    ),
)


def hypergen(*arguments: str) -> float:
    """Runs a command; returns its seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "hypergen", *arguments], check=True)
    return time.perf_counter() - start


def train(row: Row) -> None:
    """Builds the zoo and trains the run, whichever is missing."""
    name, *options = row.zoo
    out = next((o.split("=")[1] for o in options if o.startswith("--out=")), f"runs/{name}")
    if not Path(out).exists():
        hypergen("zoo", "build", "-c", f"configs/{name}.yaml", *options)
    run = RUNS / row.name
    if not (run / "seconds.json").exists():
        config = f"configs/{row.recipe}.yaml"
        resume = ("--resume",) if (run / "checkpoints/last.ckpt").exists() else ()
        seconds = hypergen("fit", "-c", config, "--run", str(run), *resume, *row.options)
        (run / "seconds.json").write_text(json.dumps({"training": seconds}))


def measured(row: Row, samples: int) -> dict[str, Any] | None:
    """One line of the table; None for a run that is not there."""
    import hypergen as library

    run = RUNS / row.name
    if not (run / "seconds.json").exists():
        return None
    path = run / "audit.json"
    if not path.exists():
        hypergen("audit", str(run), "--samples", str(samples), "--json", str(path))
    audit = json.loads(path.read_text())
    generator = library.load(run)
    numbers = sum(p.numel() for p in generator.parameters())
    quality = audit["quality"]
    axis = "canonical" if "canonical" in audit["spaces"] else "plain"
    space = audit["spaces"][axis]
    return {
        "method": row.method,
        "zoo": row.zoo[0].removeprefix("zoo_"),
        "metric": quality["name"],
        "samples": quality["samples"],
        "heldout": quality["heldout"],
        "R": space["ratio"],
        "dominated": audit["dominated"].get(axis),
        "verdict": audit["verdict"],
        "parameters_per_weight": numbers / generator.spec.numel,
        "training_seconds": json.loads((run / "seconds.json").read_text())["training"],
    }


def markdown(lines: list[dict[str, Any]]) -> str:
    """The table for a README."""
    out = [
        "| method | zoo | quality of samples: mean (best) | held-out networks | R | dominated | "
        "verdict | parameters a weight | training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        own, real, ratio = line["samples"], line["heldout"], line["R"]
        share = line["dominated"]
        inside = "–" if share is None else f"{100 * share['samples']['value']:.0f} %"
        out.append(
            f"| {line['method']} | {line['zoo']} | {own['mean']:.3g} ({own['max']:.3g}) "
            f"{line['metric']} | {real['mean']:.3g} ({real['max']:.3g}) | {ratio['value']:.2f} "
            f"({ratio['ci95'][0]:.2f}–{ratio['ci95'][1]:.2f}) | {inside} | {line['verdict']['kind']} | "
            f"{line['parameters_per_weight']:.0f} | {line['training_seconds'] / 60:.1f} min |"
        )
    return "\n".join(out)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train what is missing")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], help="some rows")
    parser.add_argument("--samples", type=int, default=256, help="networks of each audit")
    parser.add_argument("--json", metavar="FILE", help="write all numbers")
    args = parser.parse_args()
    rows = [row for row in ROWS if args.only is None or row.name in args.only]
    lines = []
    for row in rows:
        if args.train:
            train(row)
        line = measured(row, args.samples)
        if line is not None:
            lines.append(line)
    print(markdown(lines))
    if args.json:
        Path(args.json).write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
