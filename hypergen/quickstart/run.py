"""`hypergen demo`: from a sentence to a working adapter, end to end, on real digits."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hypergen.evaluation import (
    DescriptionBank,
    Evaluation,
    RunAssets,
    Zoo,
    default_splits,
    evaluate,
    fit_gain,
    write_report,
)
from hypergen.generators import Generator, PerceiverGenerator
from hypergen.quickstart.data import DigitsDataModule
from hypergen.quickstart.suite import DigitsSuite
from hypergen.serving.export import check_export
from hypergen.training import GeneratorModule, fit
from hypergen.zoo import train_multitask

TEXT = "Say yes if the digit is even."


class Clock:
    """Names the steps on standard error and keeps their seconds."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, number: int, name: str) -> Iterator[None]:
        """Times one step."""
        print(f"[{number}/7] {name}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return round(time.perf_counter() - self.start, 2)


def demo(
    out: str | Path = "runs/demo",
    text: str = TEXT,
    seed: int = 0,
    *,
    warm_steps: int = 200,
    steps: int = 1800,
    evaluated: int = 150,
    **data_options: Any,
) -> tuple[dict[str, Any], Evaluation]:
    """Trains, evaluates and uses a generator of LoRAs for a digit classifier.

    1. A small network is pretrained on images alone (a denoising autoencoder, no labels).
    2. One LoRA for each training question is trained, all in one stacked call.
    3. Descriptions are encoded by a frozen sentence encoder.
    4. The generator learns to reconstruct the zoo, then the questions themselves through the
       frozen network.
    5. Its expected gain is fitted on validation tasks.
    6. It is compared with every baseline on tasks, wordings and properties that it never saw.
    7. It makes an adapter from `text`, which stock PEFT loads.

    Args:
        out: The run folder.
        text: The sentence of step 7.
        seed: Seed of everything.
        warm_steps: Steps of reconstruction.
        steps: Steps through the frozen network.
        evaluated: Most training tasks that the wordings are compared on.
        **data_options: Arguments of `DigitsDataModule`.

    Returns:
        The result (the keys of `Evaluation.to_dict`, and `adapter`), and the evaluation.

    Raises:
        ConditionError: `text` is empty or too long; nothing is trained.
    """
    out, clock = Path(out), Clock()
    data = DigitsDataModule(seed=seed, **{**RECIPE, **data_options})
    with clock.step(1, "pretrain the frozen network on unlabelled images"):
        target, spec, suite = data.target, data.spec, data.suite
        data.encoder([text])  # a bad sentence fails now, not after the training
    assert isinstance(suite, DigitsSuite)
    with clock.step(2, "train the zoo and the multi-task adapter"):
        weights, tasks = data.zoo
        options = data.zoo_options
        multitask = train_multitask(
            target, spec, suite, tasks, **{k: options[k] for k in ("steps", "lr", "seed")}
        )
    with clock.step(3, "encode the descriptions"):
        data.bank(data.train_tasks, data.train_wordings)
    with clock.step(4, "train the generator"):
        generator = build_generator(data, seed)
        train_generator(generator, data, out, warm_steps, steps, seed)
    with clock.step(5, "learn to state the expected gain"):
        checked = suite.task_splits["val"] + suite.task_splits["val_properties"]
        gain = fit_gain(generator, target, suite, checked, ("val", "train"), seed=seed)
        generator.provenance = {**generator.provenance, "seed": seed, "command": "hypergen demo"}
        generator.save_pretrained(out / "generator")
    zoo = Zoo(weights, tasks)
    settings = {"oracle_steps": options["steps"], "oracle_options": {"lr": options["lr"]}}
    bank = DescriptionBank.encode(generator, suite, tasks.tolist())
    RunAssets(suite, zoo, multitask, bank, settings).save(out)
    with clock.step(6, "evaluate against every baseline"):
        evaluation = evaluate(
            generator,
            target,
            suite,
            default_splits(suite, most=evaluated, seed=seed),
            zoo=zoo,
            multitask=multitask,
            bank=bank,
            oracle_steps=options["steps"],
            oracle_options={"lr": options["lr"]},
            seed=seed,
        )
    with clock.step(7, "make an adapter from the sentence"):
        adapter = make_adapter(generator, data, text, out / "adapter", seed)
    result = {**evaluation.to_dict(), "adapter": adapter, "seconds": clock.total}
    extras = {
        "seed": seed,
        "seconds by step": clock.seconds,
        "seconds": clock.total,
        "adapter": adapter,
        "expected gain": vars(gain),
        "generator parameters": sum(p.numel() for p in generator.parameters()),
        "numbers per adapter": spec.numel,
    }
    write_report(out, evaluation, extras)
    return result, evaluation


# Batches of the recipe, as in configs/digits.yaml.
RECIPE: dict[str, Any] = {"tasks_per_batch": 96, "samples_per_task": 16}


def build_generator(data: DigitsDataModule, seed: int) -> Generator:
    """The recipe's generator, from seeded starting values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PerceiverGenerator(
            data.spec, data.encoder, latents=48, dim=16, heads=1, hidden=384, depth=2, dropout=0.15
        )


def train_generator(
    generator: Generator,
    data: DigitsDataModule,
    run: Path | None,
    warm_steps: int,
    steps: int,
    seed: int,
) -> None:
    """Reconstruction of the zoo, then the task loss through the frozen network."""
    if warm_steps:
        warm = GeneratorModule(generator, "reconstruction", lr=1e-3, weight_decay=0.05, seed=seed)
        fit(warm, data, max_steps=warm_steps, desc="warm start from the zoo")
    module = GeneratorModule(
        generator, "task", lr=1e-3, weight_decay=0.1, ema_decay=0.99, seed=seed
    )
    fit(module, data, run, max_steps=steps, desc="training through the network")


def make_adapter(
    generator: Generator, data: DigitsDataModule, text: str, folder: Path, seed: int
) -> dict[str, Any]:
    """Generates one adapter, saves it and loads it back with stock PEFT.

    Returns:
        Where it is, its expected gain, the answers it gives to each digit of the test images, and
        the largest difference between the logits of stock PEFT and hypergen's own.
    """
    suite = data.suite
    assert isinstance(suite, DigitsSuite)
    weights = generator.generate(text=text, seed=seed)
    weights.save_pretrained(folder)
    images, labels = suite.images("test")
    difference = check_export(weights, data.target, folder, images)
    with torch.no_grad():
        yes = data.target(weights, images).argmax(-1).float()
    return {
        "folder": str(folder),
        "text": text,
        "expected_gain": None if weights.expected_gain is None else float(weights.expected_gain),
        "yes_by_digit": [round(float(yes[labels == digit].mean()), 3) for digit in range(10)],
        "peft_logit_difference": difference,
    }


def demo_command(args: argparse.Namespace) -> dict[str, Any]:
    """`hypergen demo [--out DIR] [--text SENTENCE] [--seed N]`."""
    result, evaluation = demo(args.out, TEXT if args.text is None else args.text, args.seed)
    if args.json is None:
        adapter = result["adapter"]
        print(evaluation.to_table())
        print()
        print(f"{adapter['text']!r} -> {adapter['folder']}")
        shares = "  ".join(f"{d}:{s:4.0%}" for d, s in enumerate(adapter["yes_by_digit"]))
        print(f"  share of test images of each digit answered yes: {shares}")
        print(
            f"  expected gain {adapter['expected_gain']:+.2f}; stock PEFT gives the same logits "
            f"(largest difference {adapter['peft_logit_difference']:.1e})"
        )
        print(f"report: {Path(args.out) / 'report.html'}   {result['seconds']:.0f} s")
    return result
