"""`hypergen pack`: a run made small and whole, to be given to others."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.io import read_json, write_json, write_text
from hypergen.evaluation.assets import MULTITASK_FILE, PLAIN_FILE, SETTINGS_FILE, RunAssets
from hypergen.evaluation.result import LABELS
from hypergen.generators import Generator, find_run, load_generator
from hypergen.zoo import TaskSuite
from hypergen.zoo.tasks import SUITE_FILE

DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pack_command(args: argparse.Namespace) -> dict[str, Any]:
    """Writes a folder that `hypergen generate` and `evaluate --tasks` take as they do a run.

    It holds the generator (rounded if asked for), the multi-task baselines, the settings of the
    evaluation, and a record of the training tasks by hash, but none of their texts. Its card states
    the families trained on and held out, and the results of an evaluation.

    Args:
        args: `run`; `out`; `dtype` of the stored tensors; `results`, a file of
            `hypergen evaluate --json`, or None; `license` or None; `json`.

    Returns:
        `out`, `bytes` of each file and their `total`.

    Raises:
        RunError: The run or the results are missing or damaged.
        UsageError: The suite is not one of text tasks, or an unknown dtype.
        WeightsError: A tensor becomes infinite in the dtype.
    """
    if args.dtype not in DTYPES:
        raise UsageError(f"--dtype {args.dtype}.{did_you_mean(args.dtype, DTYPES)}")
    run, out = find_run(args.run), Path(args.out)
    results = None if args.results is None else read_json(args.results)
    generator, assets = load_generator(run), RunAssets.load(run)
    suite: Any = assets.suite
    if not hasattr(suite, "alone"):
        raise UsageError(f"{run} is a run of {type(suite).__name__}: runs of text tasks are packed")
    if args.license is not None:
        generator.provenance["license"] = args.license
    generator.save_pretrained(out, DTYPES[args.dtype])
    write_json(out / SUITE_FILE, suite.alone())
    for weights, file in ((assets.multitask, MULTITASK_FILE), (assets.multitask_plain, PLAIN_FILE)):
        if weights is not None:
            weights.detach().save(out / file)
    write_json(out / SETTINGS_FILE, dict(assets.settings))
    write_text(out / "README.md", pack_card(generator, suite, results, out.name))
    sizes = {
        str(file.relative_to(out)): file.stat().st_size
        for file in sorted(out.rglob("*"))
        if file.is_file()
    }
    total = sum(sizes.values())
    if args.json is None:
        print(f"{out}: {total / 1e6:.1f} MB in {len(sizes)} files")
    return {"out": str(out), "bytes": sizes, "total": total}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of `hypergen pack`."""
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    parser.add_argument(
        "--dtype", metavar="D", default="float16", help="of the stored tensors (float16)"
    )
    parser.add_argument("--results", metavar="FILE", help="of `hypergen evaluate --json FILE`")
    parser.add_argument("--license", metavar="NAME", help="licence to state on the card")


def pack_card(
    generator: Generator, suite: TaskSuite, results: Any = None, name: str = "FOLDER"
) -> str:
    """The card: what it makes, what it was trained on, what it reaches, what to expect.

    Args:
        generator: The generator.
        suite: The run's suite, with its tasks.
        results: The object of `hypergen evaluate --json`.
        name: What the folder is called.
    """
    spec, families = generator.spec, _families(suite)
    base = spec.config.get("base", {}).get("name") or "its base model"
    license = generator.provenance.get("license")
    count = sum(p.numel() for p in generator.parameters())
    lines = [
        "---",
        "library_name: hypergen",
        *([f"license: {license}"] if license else []),
        f"base_model: {base}",
        "tags:",
        "- hypergen",
        "- hypernetwork",
        "- lora",
        "---",
        "",
        f"# A LoRA for {base} from a sentence",
        "",
        f"`{type(generator).__name__}` with {count:,} parameters: a description of a task goes in, "
        f"a PEFT adapter of {spec.numel:,} numbers comes out, in one forward pass and without any "
        "example. Put the same sentence into the prompt, as training did:",
        "",
        "```",
        "{description}",
        "",
        "Input: {input}",
        "Output:",
        "```",
        "",
        "```bash",
        f'hypergen generate {name} --text "Say the opposite of the word." --out adapter',
        "```",
        "",
        "## Data",
        "",
        *(f"- {split}: {', '.join(names)}" for split, names in families.items() if names),
    ]
    steps = generator.provenance.get("steps")
    lines += [f"- steps: {steps}"] if steps else []
    if results is not None:
        lines += ["", "## Results", "", *_results(results)]
    lines += [
        "",
        "## Limits",
        "",
        "- Made for short answers to short inputs in English, of the kinds above; far from them "
        "it falls back to about what the multi-task adapter does.",
        "- The base model is small: facts that it does not know no adapter can add.",
        "- The sentence encoder that it was trained with is needed, and checked by fingerprint.",
        "- Not evaluated for safety; what it writes follows the data.",
        "",
    ]
    return "\n".join(lines)


def _families(suite: Any) -> dict[str, list[str]]:
    """What was trained on, validated on and held out: family (tasks)."""
    said = {"train": "trained on", "val": "validated on", "heldout_tasks": "held out"}
    out: dict[str, list[str]] = {}
    for split, words in said.items():
        counts: dict[str, int] = {}
        for task in suite.task_splits.get(split, ()):
            family = suite.tasks[task].family
            counts[family] = counts.get(family, 0) + 1
        out[words] = [f"{name} ({n})" for name, n in sorted(counts.items())]
    return out


def _results(results: Mapping[str, Any]) -> list[str]:
    """Means in percent with their intervals, a row for each method."""
    lines = []
    for name, split in results["splits"].items():
        lines += [
            f"`{name}`, {split['n']} tasks; score in %, 95% bootstrap interval over tasks and "
            "descriptions.",
            "",
            "| method | score |",
            "|---|---|",
        ]
        for method, label in LABELS.items():
            if method in split:
                low, high = split["ci95"][method]
                row = f"| {label} | {100 * split[method]:.1f} ({100 * low:.1f}–{100 * high:.1f}) |"
                lines.append(row)
        for other in ("multitask", "incontext"):
            if other in split:
                value = 100 * (split["generated"] - split[other])
                lines.append(f"| generated minus {LABELS[other]} | {value:+.1f} |")
        if "gap_closed" in split:
            low, high = split["ci95"]["gap_closed"]
            value = f"{100 * split['gap_closed']:.0f} ({100 * low:.0f}–{100 * high:.0f})"
            lines.append(f"| gap between base and trained on the task that is closed | {value} |")
        lines.append("")
    return lines[:-1]
