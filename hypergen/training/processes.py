"""Which part of a batch, or of a split, a process of several works on."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule

from hypergen._utils.errors import UsageError


def rank_and_world(data: LightningDataModule) -> tuple[int, int]:
    """Number of this process, and of all; (0, 1) without a trainer."""
    trainer = data.trainer
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


def check_divides(data: LightningDataModule, option: str) -> tuple[int, int]:
    """`rank_and_world`, when a size that all processes share can be split over them.

    Args:
        data: The data module.
        option: Name of its attribute (and option) that holds the size.

    Raises:
        UsageError: It cannot.
    """
    (rank, world), size = rank_and_world(data), getattr(data, option)
    if size % world:
        raise UsageError(
            f"{option}={size} cannot be split over {world} processes: take a multiple of {world}"
        )
    return rank, world


def own_share(data: LightningDataModule, option: str) -> slice:
    """The rows of a global batch that this process trains on; see `check_divides`."""
    rank, world = check_divides(data, option)
    part = getattr(data, option) // world
    return slice(rank * part, (rank + 1) * part)
