"""The dispatcher: verbs, options, `--json`, errors and exit codes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import hypergen
from hypergen import cli
from hypergen.errors import WeightsError


@pytest.fixture
def command(monkeypatch):
    """Puts a function in the place of a verb's implementation."""

    def replace(verb, function):
        name, attribute, _ = cli._COMMANDS[verb]
        module = ModuleType(name)
        setattr(module, attribute, function)
        monkeypatch.setitem(sys.modules, name, module)

    return replace


@pytest.fixture
def demo(command):
    """A `demo` that prints in three ways and records the options it was called with."""
    calls = []

    def run(args):
        calls.append(vars(args).copy())
        print("a table")
        os.write(1, b"from C\n")
        print("a log", file=sys.stderr)
        return {"splits": {"a": 0.5}, "seed": args.seed}

    command("demo", run)
    return calls


def fails(capsys, *words) -> str:
    """The one line on standard error with which bad input ends."""
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hypergen: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.removeprefix("hypergen: error: ").strip()


# Verbs and options


def test_help_names_every_verb(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    verbs = ["demo", "fit", "validate", "test", "generate", "combine", "evaluate", "audit"]
    verbs += ["pack", "graph", "init", "methods", "bench"]
    verbs += ["zoo build", "zoo verify", "zoo import", "zoo info"]
    lines = [line.strip() for line in out.splitlines() if line.startswith("  ")]
    assert [line.split("  ")[0] for line in lines][: len(verbs)] == verbs


def test_help_of_a_group_names_its_verbs(capsys):
    assert cli.main(["zoo", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: hypergen zoo COMMAND")
    assert all(f"zoo {name} " in out for name in ("build", "verify", "import", "info"))
    assert "demo" not in out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"hypergen {hypergen.__version__}\n"


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("demo", ["--out", "--text", "--seed", "--json"]),
        ("generate", ["--text", "--demos", "--document", "--n", "--seed", "--out"]),
        ("generate", ["--as-one", "--mix", "--merge", "--base", "--json"]),
        ("evaluate", ["--tasks", "--split", "--json", "--report", "--samples", "--no-oracle"]),
        ("methods", ["--json"]),
        ("bench", ["--json"]),
        ("zoo verify", ["DIR", "--json"]),
        ("zoo build", ["--config", "--out", "--engine", "--workers", "--address", "--json"]),
    ],
)
def test_the_help_of_a_verb_names_its_options(capsys, verb, options):
    assert cli.main([*verb.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert all(option in out for option in options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dmeo"], "unknown command 'dmeo'. Did you mean 'demo'?"),
        (["--versoin"], "unknown option '--versoin'. Did you mean '--version'?"),
        (["demo", "--txet", "x"], "hypergen demo has no option '--txet'. Did you mean '--text'?"),
        (["demo", "--se", "1"], "hypergen demo has no option '--se'."),
        (["demo", "-t"], "hypergen demo has no option '-t'."),
        (["demo", "x"], "hypergen demo does not take 'x'"),
        (["demo", "--seed", "a"], "argument --seed: 'a' is not a whole number"),
        (["demo", "--seed", "-1"], "argument --seed: -1 is below 0"),
        (["demo", "--text"], "argument --text: expected one argument"),
        (["generate", "run", "--txt", "a"], "hypergen generate has no option '--txt'."),
        (["generate", "run", "--out", "a"], "give one of --text, --demos and --document"),
        (["generate", "run", "--text", "a"], "the following arguments are required: --out"),
        (
            ["generate", "r", "--text", "a", "--document", "b", "--out", "c"],
            "only --text and --demos go together",
        ),
        (["generate", "r", "--text", "a", "--n", "0", "--out", "c"], "argument --n: 0 is below 1"),
        (["generate", "r", "--text", "a", "--out", "c", "--mix", "x"], "invalid float value: 'x'"),
        (["evaluate", "--tasks", "t"], "the following arguments are required: RUN"),
        (
            ["zoo"],
            "hypergen zoo COMMAND. Choose from: build, import, info, verify.",
        ),
        (["zoo", "biuld"], "unknown command 'zoo biuld'. Did you mean 'build'?"),
        (["zoo", "--out", "a"], "unknown command 'zoo --out'."),
        (["zo"], "unknown command 'zo'. Did you mean 'zoo'?"),
        (["zoo", "verify", "a", "--jsn"], "hypergen zoo verify has no option '--jsn'. Did you"),
    ],
)
def test_bad_words_give_one_line_and_2(capsys, words, message):
    assert message in fails(capsys, *words)


def test_no_words_list_the_commands(capsys):
    message = fails(capsys)
    assert all(verb.split()[0] in message for verb in cli._COMMANDS)


def test_options_reach_the_command(command):
    calls = []
    command("generate", lambda args: calls.append(vars(args)))
    words = ["generate", "run", "--text", "Say yes.", "--n", "2", "--seed", "3", "--out", "folder"]
    assert cli.main(words) == 0
    assert calls == [
        {
            "run": "run",
            "text": ["Say yes."],
            "demos": None,
            "document": None,
            "as_one": False,
            "n": 2,
            "seed": 3,
            "mix": None,
            "merge": False,
            "base": None,
            "refine": None,
            "steps": 20,
            "lr": None,
            "heldout": 0,
            "search": False,
            "load_base": cli._load_base,
            "refiner": cli._refine,
            "out": "folder",
            "json": None,
        }
    ]


def test_weights_of_a_mix_may_be_left_out_or_negative(command):
    calls = []
    command("generate", lambda args: calls.append((args.run, args.mix)))
    words = ["generate", "run", "--text", "a", "--text", "b", "--out", "folder"]
    assert cli.main([*words, "--mix"]) == 0
    assert cli.main([*words, "--mix", "0.7", "-0.3"]) == 0
    assert calls == [("run", []), ("run", [0.7, -0.3])]


def test_a_recorded_base_is_looked_for_in_packages_first(monkeypatch):
    models = ModuleType("hypergen._utils.language_models")
    models.PACKAGED = {
        "gone": SimpleNamespace(hub_name="some/model", module="no_such_module"),
        "here": SimpleNamespace(hub_name="some/model", module="json"),
    }
    models.load_language_model = lambda name: SimpleNamespace(model=name, tokenizer="t")
    monkeypatch.setitem(sys.modules, "hypergen._utils.language_models", models)
    assert cli._load_base("some/model", True) == ("here", "t")
    assert cli._load_base("some/model", False) == ("some/model", "t")  # as --base says
    assert cli._load_base("other/model", True) == ("other/model", "t")


def test_defaults_of_the_other_verbs(command, demo):
    calls = []
    command("evaluate", lambda args: calls.append(vars(args)))
    command("bench", lambda args: calls.append(vars(args)))
    assert cli.main(["demo"]) == 0
    assert cli.main(["evaluate", "run", "--tasks", "t"]) == 0
    assert cli.main(["bench"]) == 0
    assert cli.main(["bench", "core"]) == 0
    assert demo == [{"out": "runs/demo", "text": None, "seed": 0, "json": None}]
    assert calls == [
        {
            "run": "run",
            "tasks": "t",
            "stories": None,
            "plain": None,
            "split": "test",
            "report": None,
            "samples": None,
            "descriptions": 3,
            "shots": None,
            "k": None,
            "lora_steps": None,
            "refine_steps": None,
            "refine_demos": 16,
            "refine_curve": 0,
            "properties": None,
            "images": None,
            "architectures": None,
            "sgd_steps": None,
            "init_steps": None,
            "zoo": None,
            "n": 3,
            "prompts": 20,
            "recursive": 3,
            "runs": 100,
            "against": None,
            "optimizer": "sgd",
            "init_lr": None,
            "init_noise": 0.0,
            "init_orthogonal": False,
            "oracle_steps": None,
            "no_oracle": False,
            "json": None,
        },
        {"name": None, "json": None},
        {"name": "core", "json": None},
    ]


def test_a_verb_of_two_words_gets_its_options(command):
    calls = []
    command("zoo verify", lambda args: calls.append(vars(args)))
    assert cli.main(["zoo", "verify", "folder"]) == 0
    assert calls == [{"zoo": "folder", "json": None}]


def test_an_open_verb_gets_the_options_that_it_does_not_know(command):
    calls = []
    command("zoo build", lambda args: calls.append((args.config, args.rest)))
    module = sys.modules["hypergen.zoo.build.command"]
    module.add_options = lambda parser: parser.add_argument("-c", "--config")
    words = ["zoo", "build", "--steps", "3", "-c", "a.yaml", "--network.hidden=[3]", "--lr", "-1"]
    assert cli.main(words) == 0
    assert calls == [("a.yaml", ["--steps", "3", "--network.hidden=[3]", "--lr", "-1"])]


def test_a_result_may_carry_the_exit_code(command, capsys, tmp_path):
    command("zoo verify", lambda args: {"intact": False, "exit_code": 1})
    assert cli.main(["zoo", "verify", "folder"]) == 1
    assert cli.main(["zoo", "verify", "folder", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"intact": False}
    path = tmp_path / "result.json"
    assert cli.main(["zoo", "verify", "folder", "--json", str(path)]) == 1
    assert json.loads(path.read_text()) == {"intact": False}


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_the_trainer_gets_its_words_untouched(command, verb):
    calls = []
    command(verb, calls.append)
    words = [verb, "-c", "configs/a.yaml", "--trainer.max_epochs", "2", "--help"]
    assert cli.main(words) == 0
    assert calls == [words]


# --json


def test_without_json_the_command_prints(demo, capfd):
    assert cli.main(["demo"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == ["from C", "a table"] or out.splitlines() == ["a table", "from C"]
    assert err == "a log\n"


def test_json_alone_is_one_object_on_stdout_and_nothing_else(demo, capfd):
    assert cli.main(["demo", "--json", "--seed", "7"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"splits": {"a": 0.5}, "seed": 7}
    assert sorted(err.splitlines()) == ["a log", "a table", "from C"]
    assert demo[0]["json"] == "-"


def test_json_alone_in_a_real_process():
    code = (
        "import os, sys, types\n"
        "module = types.ModuleType('hypergen.bench')\n"
        "def bench_command(args):\n"
        "    print('printed'); os.write(1, b'written'); os.system('echo child')\n"
        "    return {'name': 'core'}\n"
        "module.bench_command = bench_command\n"
        "sys.modules['hypergen.bench'] = module\n"
        "from hypergen.cli import main\n"
        "sys.exit(main(['bench', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"name": "core"}
    assert all(word in done.stderr for word in ("printed", "written", "child"))


def test_json_with_a_file_keeps_the_human_output(demo, capsys, tmp_path):
    path = tmp_path / "new" / "result.json"
    assert cli.main(["demo", "--json", str(path)]) == 0
    assert json.loads(path.read_text()) == {"splits": {"a": 0.5}, "seed": 0}
    assert "a table" in capsys.readouterr().out
    assert demo[0]["json"] is None


def test_a_json_file_that_cannot_be_written_fails_before_the_work(demo, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "is a folder" in fails(capsys, "demo", "--json", str(tmp_path))
    assert "not a folder" in fails(capsys, "demo", "--json", str(tmp_path / "file" / "a.json"))
    assert demo == []


def test_nan_in_a_result_becomes_null(command, capsys):
    command("bench", lambda args: {"bound": math.nan})
    assert cli.main(["bench", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"bound": None}


# Errors


def test_an_error_is_one_line_and_2_even_with_json(command, capsys, tmp_path):
    def fail(args):
        raise WeightsError("slot 'a'\n has NaN")

    command("demo", fail)
    assert fails(capsys, "demo") == "slot 'a' has NaN"
    assert fails(capsys, "demo", "--json") == "slot 'a' has NaN"
    assert fails(capsys, "demo", "--json", str(tmp_path / "a.json")) == "slot 'a' has NaN"
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_is_130(command, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    command("demo", interrupt)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr() == ("", "hypergen: interrupted\n")


def test_a_bug_shows_itself(command):
    def bug(args):
        raise ZeroDivisionError("bug")

    command("demo", bug)
    with pytest.raises(ZeroDivisionError, match="bug"):
        cli.main(["demo", "--json"])


def test_stdout_is_back_after_a_failure_with_json(command, capfd):
    def fail(args):
        raise WeightsError("no")

    command("demo", fail)
    assert cli.main(["demo", "--json"]) == 2
    os.write(1, b"visible")
    assert capfd.readouterr().out == "visible"


def test_python_m_hypergen_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "hypergen", "dmeo"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "hypergen: error: unknown command 'dmeo'. Did you mean 'demo'?\n"
