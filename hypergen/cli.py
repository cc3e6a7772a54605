"""The command line: finds the verb, reads its options, calls the module that does the work.

Nothing heavy is imported before a verb is known, so `hypergen --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hypergen
from hypergen._utils.errors import HypergenError, UsageError, did_you_mean
from hypergen._utils.io import dump_json, write_json

# Verb -> (module, function, one line of help). The function gets the parsed options and returns
# the result as a dictionary, with the exit code under "exit_code" where that is not 0; those of
# `_TRAINER` get the rest of the command line untouched, those of `_OPEN` the options that they do
# not define themselves as `rest`.
_COMMANDS = {
    "demo": ("hypergen.quickstart.run", "demo_command", "train and evaluate the quickstart"),
    "fit": ("hypergen.training.cli", "main", "train a recipe"),
    "validate": ("hypergen.training.cli", "main", "run a recipe's validation"),
    "test": ("hypergen.training.cli", "main", "run a recipe's test"),
    "generate": ("hypergen.serving.generate", "generate_command", "turn a condition into weights"),
    "combine": ("hypergen.serving.combine", "combine_command", "mix several adapters into one"),
    "evaluate": ("hypergen.evaluation.command", "evaluate_command", "compare with all baselines"),
    "audit": ("hypergen.evaluation.audit.command", "audit_command", "tell sampled from copied"),
    "pack": ("hypergen.evaluation.pack", "pack_command", "make a run small, to give to others"),
    "graph": ("hypergen.conditions.graph.command", "graph_command", "show a network's graph"),
    "init": ("hypergen.generators.graph.command", "init_command", "weights for any architecture"),
    "methods": ("hypergen.methods", "methods_command", "list every system, its papers and status"),
    "bench": ("hypergen.bench", "bench_command", "measure speed and memory"),
    "zoo build": ("hypergen.zoo.build.command", "build_command", "train a collection of networks"),
    "zoo verify": ("hypergen.zoo.store.verify", "verify_command", "check every byte of a zoo"),
    "zoo import": ("hypergen.zoo.importing.command", "import_command", "make a zoo of checkpoints"),
    "zoo info": ("hypergen.zoo.looking.command", "info_command", "describe what a zoo holds"),
}
_TRAINER = ("fit", "validate", "test")
_OPEN = ("zoo build",)

_STDOUT = "-"  # what `--json` alone stands for


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of printing its usage and leaving."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Words after `hypergen`; those of the process when None.

    Returns:
        The exit code: 0, 1 where a command found what it looks for (damages), 2 after bad input
        (one line on standard error says what), or 130 when interrupted. Anything else is a bug and
        shows its traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except HypergenError as error:
        print(f"hypergen: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hypergen: interrupted", file=sys.stderr)
        return 130


def _run(words: list[str]) -> int:
    if not words:
        raise UsageError(f"say what to do.{did_you_mean('', _names())}")
    verb, rest = words[0], words[1:]
    if verb in ("-h", "--help"):
        print(_help())
        return 0
    if verb == "--version":
        print(f"hypergen {hypergen.__version__}")
        return 0
    if verb not in _names():
        kind = "option" if verb.startswith("-") else "command"
        choices = ("--help", "--version") if kind == "option" else _names()
        raise UsageError(f"unknown {kind} '{verb}'.{did_you_mean(verb, choices)}")
    if _names(verb):
        if rest[:1] in (["-h"], ["--help"]):
            print(_help(verb))
            return 0
        verb, rest = _nested(verb, rest), rest[1:]
    if verb in _TRAINER:
        return int(_function(verb)([verb, *rest]) or 0)
    args = _parse(verb, rest)
    if args is None:
        return 0
    return _execute(_function(verb), args)


def _names(group: str = "") -> list[str]:
    """First words of all verbs, or the second words of those of a group such as `zoo`."""
    if not group:
        return list(dict.fromkeys(verb.split()[0] for verb in _COMMANDS))
    return [verb.split()[1] for verb in _COMMANDS if verb.startswith(f"{group} ")]


def _nested(group: str, rest: list[str]) -> str:
    """The verb of two words that a command line begins with."""
    names = _names(group)
    if not rest:
        raise UsageError(f"say what to do: hypergen {group} COMMAND.{did_you_mean('', names)}")
    if rest[0] not in names:
        hint = did_you_mean(rest[0], names)
        raise UsageError(f"unknown command '{group} {rest[0]}'.{hint}")
    return f"{group} {rest[0]}"


def _function(verb: str) -> Callable[..., Any]:
    module, function, _ = _COMMANDS[verb]
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _execute(command: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> int:
    """Calls a command, puts its result where `--json` says, and returns the exit code."""
    wanted = getattr(args, "json", None)
    if wanted == _STDOUT:
        with _stdout_to_stderr():
            result = command(args)
        code = _exit_code(result)
        print(dump_json(result, nonfinite="null"), end="", flush=True)
        return code
    if wanted is not None:
        _check_writable(Path(wanted))  # before minutes of work, not after
        args.json = None  # human output stays when the result goes to a file
    result = command(args)
    code = _exit_code(result)
    if wanted is not None:
        write_json(wanted, result, nonfinite="null")
    return code


def _exit_code(result: Any) -> int:
    """Takes the exit code out of a result."""
    return int(result.pop("exit_code", 0)) if isinstance(result, dict) else 0


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"--json {path}: that is a folder; name a file")
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UsageError(f"--json {path}: {existing} is not a folder that can be written to")


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Sends to standard error what Python, C libraries and child processes print meanwhile."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of the two is closed: only Python's own printing can be caught
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 1)
        os.close(saved)


def _help(group: str = "") -> str:
    prefix = f"{group} " if group else ""
    verbs = {verb: text for verb, (_, _, text) in _COMMANDS.items() if verb.startswith(prefix)}
    width = max(map(len, verbs)) + 2
    lines = [f"usage: hypergen {prefix}COMMAND [options]", ""]
    if not group:
        lines += ["Generates neural-network weights.", ""]
    lines += [f"  {verb:<{width}}{text}" for verb, text in verbs.items()]
    options = {
        "--help": f"show this, or the options of a command: hypergen {prefix}COMMAND --help",
        "--version": "show the version",
    }
    if group:
        del options["--version"]
    lines += ["", *(f"  {option:<{width}}{text}" for option, text in options.items())]
    return "\n".join(lines)


def _parse(verb: str, words: list[str]) -> argparse.Namespace | None:
    """Returns the options of a verb, or None once its help was printed.

    Raises:
        UsageError: An option is unknown, missing or has a value it cannot have.
    """
    parser = _parser(verb)
    if any(word in ("-h", "--help") for word in words):
        print(parser.format_help(), end="")
        return None
    if verb in _OPEN:
        opened, rest = parser.parse_known_args(words)
        opened.rest = rest
        return opened
    known = [option for option in parser._option_string_actions if option.startswith("--")]
    for word in words:  # before argparse, which would complain of what the typo left out
        option = word.split("=", 1)[0]
        number = word[1:2].isdigit()
        if word.startswith("-") and word != "-" and not number and option not in known:
            hint = did_you_mean(option, known)
            raise UsageError(f"hypergen {verb} has no option '{option}'.{hint}")
    args, unknown = parser.parse_known_args(words)
    if unknown:
        raise UsageError(f"hypergen {verb} does not take '{unknown[0]}' (see its --help)")
    return args


def _parser(verb: str) -> _Parser:
    parser = _Parser(prog=f"hypergen {verb}", description=f"{_COMMANDS[verb][2].capitalize()}.")
    module = _COMMANDS[verb][0]
    add = _OPTIONS[verb] if verb in _OPTIONS else importlib.import_module(module).add_options
    add(parser)
    if "--json" not in parser._option_string_actions:
        _json(parser)
    return parser


def _demo(parser: _Parser) -> None:
    parser.add_argument("--out", metavar="DIR", default="runs/demo", help="run folder to write")
    parser.add_argument("--text", metavar="SENTENCE", help="task to make an adapter for")
    parser.add_argument("--seed", metavar="N", type=_seed, default=0, help="seed of everything")
    _json(parser)


def _generate(parser: _Parser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="run folder, generator folder, or name of a shipped generator"
    )
    parser.add_argument(
        "--text",
        metavar="S",
        action="append",
        help="description of the task; may be repeated; - reads one a line: --text - < FILE",
    )
    parser.add_argument(
        "--demos",
        metavar="FILE.jsonl",
        action="append",
        help='demonstrations, {"input": …, "output": …} a line; may be repeated, and stand beside '
        "--text for a generator that reads both",
    )
    parser.add_argument(
        "--document",
        metavar="FILE.txt",
        nargs="+",
        help="documents of any length to take in, one adapter each; - reads standard input",
    )
    parser.add_argument(
        "--as-one", action="store_true", help="read all files of --document into one adapter"
    )
    parser.add_argument("--n", metavar="N", type=_count, default=1, help="how many samples")
    parser.add_argument("--seed", metavar="S", type=_seed, default=0, help="seed of the samples")
    parser.add_argument(
        "--mix",
        metavar="W",
        nargs="*",
        type=float,
        help="write one adapter: the sum of W × each text's update (mean without W)",
    )
    parser.add_argument(
        "--merge", action="store_true", help="write the whole base model, with the update in it"
    )
    parser.add_argument(
        "--base", metavar="MODEL", help="folder or name of the base for --merge, if not as recorded"
    )
    parser.add_argument(
        "--refine",
        metavar="FILE.jsonl",
        help='tune what is generated on demonstrations, {"input": …, "output": …} a line',
    )
    parser.add_argument(
        "--steps", metavar="K", type=_seed, default=20, help="steps of --refine; 0 for none"
    )
    parser.add_argument("--lr", metavar="X", type=float, help="learning rate of --refine")
    parser.add_argument(
        "--heldout",
        metavar="N",
        type=_seed,
        default=0,
        help="of --refine: keep the step that is best on the last N demonstrations, held out",
    )
    parser.add_argument(
        "--search", action="store_true", help="of --refine: tune the condition, not the weights"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    parser.set_defaults(load_base=_load_base, refiner=_refine)
    _json(parser)


def _load_base(name: str, recorded: bool) -> tuple[Any, Any]:
    """A base model and its tokenizer; serving, which merges into it, knows no zoo.

    Args:
        name: Its name, folder or GGUF file.
        recorded: Whether that is what a generator recorded: a packaged model calls itself by its
            name on the hub, and is what the generator was made for where it is installed.
    """
    models = importlib.import_module("hypergen._utils.language_models")
    loaded = models.load_language_model(_packaged(name) if recorded else name)
    return loaded.model, loaded.tokenizer


def _packaged(name: str) -> str:
    models = importlib.import_module("hypergen._utils.language_models")
    packaged = [key for key, p in models.PACKAGED.items() if p.hub_name == name]
    return next((k for k in packaged if _is_installed(models.PACKAGED[k].module)), name)


def _refine(*args: Any, base: str, recorded: bool, **options: Any) -> Any:
    """Tunes what was generated; serving, which asks for it, knows no zoo."""
    refining = importlib.import_module("hypergen.zoo.language.refining")
    name = _packaged(base) if recorded else base
    return refining.refine_generated(*args, base=name, **options)


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _evaluate(parser: _Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument(
        "--tasks", metavar="DIR", help="folder of tasks; the run's own held-out ones when left out"
    )
    parser.add_argument(
        "--stories",
        metavar="FILE.jsonl",
        help="stories with questions, for a generator that reads documents",
    )
    parser.add_argument(
        "--plain", metavar="FILE", help="with --stories: unrelated text that should not suffer"
    )
    parser.add_argument("--split", metavar="NAME", default="test", help="split to evaluate on")
    parser.add_argument("--report", metavar="DIR", help="folder for report.html and its plots")
    parser.add_argument(
        "--samples", metavar="N", type=_count, help="most test samples of a task; as trained if not"
    )
    parser.add_argument(
        "--descriptions", metavar="N", type=_count, default=3, help="most descriptions of a task"
    )
    parser.add_argument(
        "--shots", metavar="K", type=_seed, help="demonstrations of the in-context row; 0 for none"
    )
    parser.add_argument(
        "--k",
        metavar="K",
        nargs="+",
        type=_seed,
        help="evaluate a generator that reads demonstrations with K of them on held-out tasks, "
        "beside the same in the prompt and a LoRA trained on them: --k 0 1 4 16",
    )
    parser.add_argument(
        "--lora-steps", metavar="N", type=_seed, help="steps of the LoRA of --k; 0 for none"
    )
    parser.add_argument(
        "--refine-steps",
        metavar="K",
        nargs="+",
        type=_seed,
        help="tune what is generated for unseen tasks, or its condition, in K steps on a few "
        "demonstrations, beside the same from scratch: --refine-steps 0 5 20",
    )
    parser.add_argument(
        "--refine-demos", metavar="N", type=_count, default=16, help="demonstrations of a task"
    )
    parser.add_argument(
        "--refine-curve",
        metavar="N",
        type=_seed,
        default=0,
        help="also train for N steps from the generated and from the empty start, and say when "
        "95%% of the oracle's score is reached",
    )
    _evaluate_architectures(parser)
    _evaluate_zoo(parser)
    parser.add_argument(
        "--properties",
        metavar="ZOO",
        help="of a generator with a codec: predict the metrics of the networks of this zoo from "
        "their embeddings, beside statistics of their layers",
    )
    parser.add_argument(
        "--images",
        metavar="N",
        type=_count,
        help="of a generator of images as networks (SIREN): compare N of them with held-out ones",
    )
    oracle = parser.add_mutually_exclusive_group()
    oracle.add_argument(
        "--oracle-steps", metavar="N", type=_seed, help="steps to train each task's own weights in"
    )
    oracle.add_argument("--no-oracle", action="store_true", help="train no weights on the tasks")
    _json(parser)


def _evaluate_zoo(parser: _Parser) -> None:
    """Options for a run that was trained on a zoo of networks."""
    add = parser.add_argument
    add("--zoo", metavar="DIR", help="where the zoo is now that the run was trained on")
    add("--n", metavar="N", type=_count, default=3, help="networks to sample for each unseen task")
    add("--prompts", metavar="N", type=_count, default=20, help="metric values to prompt for")
    add("--recursive", metavar="K", type=_count, default=3, help="prompts after one another")
    add("--runs", metavar="N", type=_count, default=100, help="most held-out runs to prompt")


def _evaluate_architectures(parser: _Parser) -> None:
    """Options for the run of a graph hypernetwork."""
    add = parser.add_argument
    add(
        "--architectures",
        metavar="N",
        type=_count,
        help="of a graph hypernetwork: unseen architectures of each split",
    )
    add("--sgd-steps", metavar="N", type=_count, help="also train each of them in N steps")
    add(
        "--init-steps",
        metavar="N",
        type=_count,
        help="train them in N steps from generated and from default starts, each with the learning "
        "rate that is best for it",
    )
    add("--against", metavar="RUN", nargs="+", help="further graph hypernetworks to start from")
    add("--optimizer", choices=("sgd", "adamw"), default="sgd", help="of --sgd-steps, --init-steps")
    add("--init-lr", metavar="X", nargs="+", type=float, help="learning rates to choose from")
    add(
        "--init-noise",
        metavar="S",
        type=float,
        default=0.0,
        help="add noise of S × the deviation of a matrix to it before training",
    )
    add("--init-orthogonal", action="store_true", help="make matrices orthogonal before training")


def _bench(parser: _Parser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="benchmark; all when left out")
    _json(parser)


def _verify(parser: _Parser) -> None:
    parser.add_argument("zoo", metavar="DIR", help="folder of the zoo")


def _json(parser: _Parser) -> None:
    parser.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const=_STDOUT,
        help="write the result as JSON to FILE; without FILE print that alone",
    )


# Options of the other verbs are added by `add_options` of their module.
_OPTIONS: dict[str, Callable[[_Parser], None]] = {
    "demo": _demo,
    "generate": _generate,
    "evaluate": _evaluate,
    "methods": _json,
    "bench": _bench,
    "zoo verify": _verify,
}


def _seed(text: str) -> int:
    return _integer(text, 0)


def _count(text: str) -> int:
    return _integer(text, 1)


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is below {least}")
    return value


if __name__ == "__main__":
    sys.exit(main())
