"""ROUGE-L, for answers that may be right in other words.

Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", ACL Workshop 2004.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


def words(text: str) -> list[str]:
    """Lower-cased words, without signs."""
    return re.findall(r"\w+", text.lower())


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        left = 0  # of the row before, one column to the left
        for j, y in enumerate(b):
            left, row[j + 1] = row[j + 1], left + 1 if x == y else max(row[j + 1], row[j])
    return row[-1]


def rouge_l(answer: str, outputs: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words; the best over the accepted outputs.

    Where an output has no words (a sign alone), it is 1 if the answer equals it and 0 otherwise.
    """
    own = words(answer)
    best = 0.0
    for output in outputs:
        other = words(output)
        if own and other:
            best = max(best, 2 * longest_common(own, other) / (len(own) + len(other)))
        elif not other and answer.strip() == output.strip():
            best = 1.0
    return best
