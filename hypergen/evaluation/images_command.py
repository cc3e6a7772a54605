"""`hypergen evaluate RUN --images N`: what generated implicit representations look like."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.io import write_json
from hypergen._utils.seeding import generator as seeded
from hypergen.evaluation.sets import compare_sets, decode_images
from hypergen.generators import Generator, load_generator
from hypergen.zoo.networks import Network
from hypergen.zoo.reading.record import ZooRecord
from hypergen.zoo.store import Zoo

PIXELS = 28  # on both sides; a representation has no resolution of its own
NOISE = 0.3  # of the spread of each number over the training networks


def images_command(args: argparse.Namespace, run: Path) -> dict[str, Any]:
    """Compares the images of generated networks with those of held-out ones, as sets.

    Beside the generated ones stand networks of the training split (what can be reached), these
    with noise, and draws of a Gaussian for each number on its own. With a condition, networks are
    generated for the descriptions of the test split.

    Args:
        args: `images` (most images of a set), `json`, and, if they are there, `zoo` (where the zoo
            is now), `report` (folder for numbers and pictures) and `seed`.
        run: The run folder.

    Returns:
        The object of `SetComparison.to_dict`.

    Raises:
        UsageError: The networks are no images, or the condition is no text.
        RunError: The run or its zoo is missing or damaged.
    """
    record = ZooRecord.load(run, getattr(args, "zoo", None))
    generator = load_generator(run)
    seed = getattr(args, "seed", 0)
    train, test = record.splits["train"], record.splits["test"]
    network = Network.from_dict(test.architecture.config)
    count = min(args.images, len(test))
    sets = {"generated": _generated(generator, record, count, seed), **_real(train, count, seed)}
    images = {name: decode_images(network, flat, PIXELS, PIXELS) for name, flat in sets.items()}
    reference = decode_images(network, test.flat(), PIXELS, PIXELS)
    found = compare_sets(images, reference, seed=seed)
    if args.json is None:
        print(found.to_table())
    report = getattr(args, "report", None)
    if report is not None:
        folder = Path(report)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "sets.json", found.to_dict())
        save_gallery({"held out": reference, **images}, folder / "images.png")
        if args.json is None:
            print(f"report: {folder / 'sets.json'}\nreport: {folder / 'images.png'}")
    return found.to_dict()


def _generated(generator: Generator, record: ZooRecord, count: int, seed: int) -> Tensor:
    if record.kind == "none":
        return generator.generate(n=count, seed=seed).flat().cpu()
    if record.kind != "text":
        raise UsageError("--images takes generators without a condition, or of descriptions")
    test = record.splits["test"]
    texts = [test.tasks[row.task].descriptions[0] for row in test.rows][:count]
    with torch.no_grad():
        condition = generator.encode(text=texts)
        # A draw of its own for each: many tasks have one description.
        return generator.sample(condition, range(seed, seed + len(texts))).flat().cpu()


def _real(train: Zoo, count: int, seed: int) -> dict[str, Tensor]:
    draw = seeded("sets", seed)
    flat = train.flat().float()
    mean, std = flat.mean(0), flat.std(0)
    own = flat[torch.randperm(len(flat), generator=draw)[:count]]
    noise, gauss = (torch.randn(own.shape, generator=draw) for _ in range(2))
    return {
        "training": own,
        f"training + {NOISE} noise": own + NOISE * std * noise,
        "gaussian": mean + std * gauss,
    }


def save_gallery(sets: dict[str, Tensor], path: Path, columns: int = 12) -> None:
    """Draws the first images `[N, H, W, C]` of each set in a row; values from -1 to 1."""
    from hypergen._utils.figures import new_figure, png

    rows = []
    for images in sets.values():
        channels = images[:columns, ..., :3] if images.shape[-1] >= 3 else images[:columns, ..., :1]
        row = images.new_ones(columns, *channels.shape[1:])  # white where there are fewer
        row[: len(channels)] = channels
        # Side by side, a white pixel apart.
        row = torch.nn.functional.pad(row, (0, 0, 0, 1, 0, 1), value=1.0)
        rows.append(row.transpose(0, 1).flatten(1, 2))
    mosaic = ((torch.cat(rows) + 1) / 2).clamp(0, 1).cpu()
    figure = new_figure(columns * 0.55 + 1.8, len(sets) * 0.55 + 0.2)
    axis = figure.subplots()
    axis.imshow(mosaic.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
    height = len(mosaic) / len(sets)
    axis.set_yticks([height * (i + 0.5) for i in range(len(sets))], list(sets))
    axis.set_xticks([])
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    path.write_bytes(png(figure))
