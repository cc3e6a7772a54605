"""One job, wherever it runs: in this process, in a worker, on another machine."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from hypergen._utils.errors import RunError
from hypergen._utils.memory import is_out_of_memory
from hypergen._utils.threads import one_thread
from hypergen.zoo.build.recipe import Recipe
from hypergen.zoo.store import Block, Row


@dataclass(frozen=True)
class PackedBlock:
    """A block whose numbers are plain bytes.

    Tensors travel between processes through shared memory that their maker owns; bytes survive it.
    """

    architecture: str
    data: Any  # NumPy array of bytes
    dtype: torch.dtype
    shape: tuple[int, int]
    rows: list[Row]

    @staticmethod
    def pack(block: Block) -> PackedBlock:
        """Takes the numbers of a block; no copy if they are on the CPU."""
        weights = block.weights.detach().cpu().contiguous()
        rows, numel = weights.shape
        data = weights.view(torch.uint8).numpy()
        return PackedBlock(block.architecture, data, weights.dtype, (rows, numel), block.rows)

    def unpack(self) -> Block:
        """Gives the block back; the bytes may be read-only and are copied then."""
        data = self.data if self.data.flags.writeable else self.data.copy()
        weights = torch.from_numpy(data).view(self.dtype).view(self.shape)
        return Block(self.architecture, weights, self.rows)


def do_job(
    recipe: Recipe, job: int, on_step: Callable[[int], None] | None = None
) -> list[PackedBlock]:
    """Runs one job on one thread.

    Raises:
        RunError: Memory ran out; says what to change.
    """
    with one_thread():
        try:
            return [PackedBlock.pack(block) for block in recipe.run(job, on_step)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(
                f"job {job} ran out of memory: {recipe.advice}. Finished parts are kept, the same "
                "command goes on with the rest"
            ) from error


def dump_recipe(recipe: Recipe) -> str:
    """A recipe as text for other processes."""
    return json.dumps(recipe.to_dict(), sort_keys=True)


@functools.lru_cache(maxsize=1)
def load_recipe(text: str) -> Recipe:
    """The recipe of `dump_recipe`; once a process, so that its data is read once."""
    return Recipe.from_dict(json.loads(text))
