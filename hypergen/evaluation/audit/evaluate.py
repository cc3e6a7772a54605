"""What `hypergen evaluate` says of sampled networks: how good they are, and if they are new."""

from __future__ import annotations

from typing import Any

from hypergen.evaluation.audit.result import Audit
from hypergen.evaluation.audit.sources import Options, audit_run
from hypergen.generators import Generator
from hypergen.zoo.reading.record import ZooRecord

_SAMPLES, _BASELINES = 128, 32  # fewer than `hypergen audit` takes


def quick_audit(
    generator: Generator, record: ZooRecord, *, samples: int = _SAMPLES, seed: int = 0
) -> Audit:
    """The audit with fewer samples and networks of each baseline."""
    options = Options(seed=seed, baselines=_BASELINES, limit=1000)
    return audit_run(generator, record, samples, options=options)


def audited(
    generator: Generator, record: ZooRecord, *, seed: int = 0, quiet: bool = False
) -> dict[str, Any]:
    """Audits a generator, and prints quality and verdict.

    Args:
        generator: The generator.
        record: The zoo that it was trained on.
        seed: Seed of all draws.
        quiet: Print nothing.

    Returns:
        `quality` (of samples, training and held-out networks) and `verdict`.
    """
    found = quick_audit(generator, record, seed=seed)
    if not quiet:
        print(found.to_short())
    told = found.to_dict()
    return {name: told[name] for name in ("quality", "verdict")}
