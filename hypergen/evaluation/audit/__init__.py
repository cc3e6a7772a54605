"""The memorisation audit of sampled weights, with its baselines, intervals and verdict."""

from hypergen.evaluation.audit.auditing import audit
from hypergen.evaluation.audit.records import Behaviour, Judge, Networks
from hypergen.evaluation.audit.resample import Estimate
from hypergen.evaluation.audit.result import Audit
from hypergen.evaluation.audit.verdict import Verdict

__all__ = ["Audit", "Behaviour", "Estimate", "Judge", "Networks", "Verdict", "audit"]
