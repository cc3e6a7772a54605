"""`hypergen evaluate RUN --stories FILE.jsonl`: a generator of documents on stories."""

from __future__ import annotations

import argparse
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen.evaluation.passages import PASSAGES
from hypergen.evaluation.stories import evaluate_stories
from hypergen.evaluation.stories_report import write_story_report
from hypergen.evaluation.story_model import open_documents
from hypergen.generators import find_run
from hypergen.zoo.language.plain import documents, text_files
from hypergen.zoo.language.stories import read_stories

_PLAIN_CHARS, _PLAIN_TEXTS = 800, 64  # of a file of plain text: size of a part, and most parts
# Options of `hypergen evaluate` that are for suites of tasks.
_TASKS_ONLY = ("tasks", "samples", "shots", "oracle_steps", "k")


def stories_command(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluates a run on stories, prints the table, writes the report if asked for.

    Args:
        args: `run`, `stories` (a file), `split` (of the file), `report` (folder or None), `json`;
            and, if they are there, `plain` (file or folder of plain text) and `seed`.

    Returns:
        The object of `StoryEvaluation.to_dict`.

    Raises:
        RunError: The run folder is missing or damaged.
        UsageError: A file is malformed, names it; or an option that is not for stories.
    """
    for name in _TASKS_ONLY:
        if getattr(args, name, None) is not None:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} is for suites of tasks: leave it out with --stories")
    run = find_run(args.run)
    stories = read_stories(args.stories, args.split)
    plain: list[str] = list(PASSAGES)
    if getattr(args, "plain", None) is not None:
        parts = (part for path in text_files(args.plain) for part in documents(path, _PLAIN_CHARS))
        plain = [text for text, _ in zip(parts, range(_PLAIN_TEXTS), strict=False)]
    generator, target, loaded = open_documents(run)
    evaluation = evaluate_stories(
        generator, target, loaded, stories, plain=plain, seed=getattr(args, "seed", 0)
    )
    if args.json is None:
        print(evaluation.to_table())
    if args.report is not None:
        extras = {"run": run.name, "stories": str(args.stories), "split": args.split}
        path = write_story_report(args.report, evaluation, extras)
        if args.json is None:
            print(f"report: {path}")
    return evaluation.to_dict()
