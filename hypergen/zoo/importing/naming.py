"""Run, step and seed of a checkpoint, read off where it lies."""

from __future__ import annotations

import re

# In this order: `epoch=3-step=100` is step 100.
_COUNTERS = (
    re.compile(
        r"(?:^|(?<=[-_.=]))(?:global[-_]?step|steps?|iteration|iter)[-_=]?(\d+)(?![0-9A-Za-z])"
    ),
    re.compile(r"(?:^|(?<=[-_.=]))(?:checkpoint|ckpt)[-_=]?(\d+)(?![0-9A-Za-z])"),
    re.compile(r"(?:^|(?<=[-_.=]))(?:epoch|ep)[-_=]?(\d+)(?![0-9A-Za-z])"),
)
_SEED = re.compile(r"(?<![A-Za-z0-9])seed[-_=]?(\d+)(?![0-9A-Za-z])")
# Names that say nothing of which network it is: the folder does.
_PLAIN = frozenset(
    ["model", "pytorch_model", "diffusion_pytorch_model", "weights", "state_dict", "checkpoint"]
)
_MOMENTS = frozenset(["last", "best", "final", "ckpt", ""]) | _PLAIN
_SHELVES = frozenset(["checkpoints", "checkpoint", "ckpts", "weights"])


def run_and_step(
    path: str, home: str, step: int | None = None, one_run: bool = False
) -> tuple[str, int]:
    """Guesses run and step.

    `seed1/step-100.pt` and `seed1/step-100/model.safetensors` are step 100 of the run `seed1`;
    `a/epoch=3-step=100.ckpt` is step 100 of `a`; `a/small-step-5.pt` is step 5 of `a/small`. A
    network without a step in its name is step 0 of a run of its own, `a/small`.

    Args:
        path: Where it lies, relative to the folder that was given, without suffix.
        home: Name of that folder, the run of what lies directly in it.
        step: Step that the file itself tells.
        one_run: Whether all checkpoints of a folder are one run.

    Returns:
        Run and step.
    """
    *folders, name = path.split("/")
    if name in _PLAIN and folders and not one_run:
        *folders, name = folders
    found = [counter.search(name) for counter in _COUNTERS]
    if step is None:
        step = next((int(match.group(1)) for match in found if match), None)
    rest = name
    for counter in _COUNTERS:
        rest = counter.sub("", rest)
    rest = re.sub(r"[-_.]{2,}", "-", rest).strip("-_.=")
    if step is not None:
        while folders and folders[-1] in _SHELVES:
            folders.pop()
    if not one_run and rest not in (_PLAIN if step is None else _MOMENTS):
        folders.append(rest)
    return "/".join(folders) or home, step or 0


def seed_of(path: str) -> int | None:
    """The seed that a path names once, as in `seed3/step-100`."""
    found = set(_SEED.findall(path))
    return int(found.pop()) if len(found) == 1 else None
