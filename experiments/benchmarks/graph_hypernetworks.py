"""Graph hypernetworks at equal training time: GHN-2, GHN-3 and ours on unseen architectures of digits.

    python experiments/benchmarks/graph_hypernetworks.py --seconds 75 --seeds 0 1 --json table.json

Run it from the repository's root. All rows train on the same stream of architectures and images
(`configs/ghn_digits.yaml`), one thread, for as many steps as take `--seconds` of processor time: a
short run of each method tells what a step takes. The published methods are there with the learning
rates and penalties of their papers, and with the settings that ours is trained with. Runs go to
`runs/graphs/NAME_SEED` and are made once; so are their evaluations.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

RUNS = Path("runs/graphs")
PROBE = 60  # steps that tell what a step takes
SPLITS = ("test", "wide", "deep", "dense", "norm_free")

GATED, TRANSFORMER = "{name: gated, dim: 64}", "{name: transformer, dim: 64, layers: 3}"
OURS = "{name: transformer, dim: 64, layers: 3, depth: 1.0}"
TILING, LOW_RANK = "{name: tiling}", "{name: low_rank}"
OWN = ("--model.loss_cap=null", "--model.ema_decay=0")

# name → (encoder, decoder, options beside those of the recipe)
METHODS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "GHN-2": (GATED, TILING, (*OWN, "--model.lr=1e-3", "--model.weight_decay=1e-5")),
    "GHN-3": (TRANSFORMER, TILING, (*OWN, "--model.lr=4e-4", "--model.norm_penalty=3e-5")),
    "GHN-2, our training": (GATED, TILING, ()),
    "GHN-3, our training": (TRANSFORMER, TILING, ()),
    "ours": (OURS, LOW_RANK, ()),
}


def hypergen(*arguments: str) -> float:
    """Runs a command on one thread; returns its processor seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "hypergen", *arguments]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fit(name: str, run: Path, steps: int, seed: int) -> float:
    """Trains; returns processor seconds."""
    encoder, decoder, options = METHODS[name]
    return hypergen(
        *("fit", "-c", "configs/ghn_digits.yaml", "--run", str(run), "--seed", str(seed)),
        f"--model.generator.init_args.encoder={encoder}",
        f"--model.generator.init_args.decoder={decoder}",
        *("--trainer.limit_val_batches=0", f"--trainer.max_steps={steps}"),
        *options,
    )


def measured(name: str, seed: int, seconds: float, architectures: int) -> dict[str, Any]:
    """Accuracies of one run, made if it is not there."""
    label = f"{name.replace(', ', '_').replace(' ', '_')}"
    run, probe = RUNS / f"{label}_{seed}", RUNS / "probes" / label
    known = probe / "seconds.json"
    if not known.exists():
        # Two lengths, so that starting Python does not count.
        short = fit(name, probe / "short", PROBE // 4, 0)
        known.write_text(json.dumps((fit(name, probe / "long", PROBE, 0) - short) / (0.75 * PROBE)))
    step = json.loads(known.read_text())
    if not (run / "spent.json").exists():
        steps = max(1, round(seconds / step))
        spent = fit(name, run, steps, seed)
        (run / "spent.json").write_text(json.dumps({"steps": steps, "seconds": spent}))
    path = run / "evaluation.json"
    if not path.exists():
        hypergen("evaluate", str(run), "--architectures", str(architectures), "--json", str(path))
    return {
        "method": name,
        "seed": seed,
        **json.loads((run / "spent.json").read_text()),
        "evaluation": json.loads(path.read_text()),
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=75, help="of training, processor time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--architectures", type=int, default=16, help="unseen ones of each split")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--json", metavar="FILE", help="write all numbers")
    args = parser.parse_args()
    lines = [
        measured(name, seed, args.seconds, args.architectures)
        for seed in args.seeds
        for name in args.only
    ]
    if args.json:
        Path(args.json).write_text(json.dumps(lines, indent=1))
    print(f"| method | seed | steps | {' | '.join(SPLITS)} |")
    print("|---|---|---|" + "---|" * len(SPLITS))
    for line in lines:
        splits = line["evaluation"]["splits"]
        cells = [_cell(splits[name]["methods"]["generated"]) for name in SPLITS]
        print(f"| {line['method']} | {line['seed']} | {line['steps']:,} | {' | '.join(cells)} |")


def _cell(found: dict[str, Any]) -> str:
    low, high = found["ci"]
    return f"{100 * found['accuracy']:.1f} ({100 * low:.1f}–{100 * high:.1f})"


if __name__ == "__main__":
    main()
