"""What the README tells people to type exists, and parses."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from hypergen import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def commands(program: str) -> list[list[str]]:
    """The words of each command line of one program in the shell blocks."""
    joined = "\n".join(blocks("bash")).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [words for words in lines if words[:1] == [program]]


@pytest.mark.parametrize("words", commands("make"), ids=" ".join)
def test_make_targets_exist(words):
    rules = re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), flags=re.M)
    targets = [word for word in words[1:] if "=" not in word]
    assert targets
    assert set(targets) <= set(rules)


@pytest.mark.parametrize("words", commands("hypergen"), ids=" ".join)
def test_hypergen_commands_parse(words):
    verb, rest = words[1], words[2:]
    if cli._names(verb):  # a verb of two words, such as `zoo build`
        verb, rest = f"{verb} {rest[0]}", rest[1:]
    assert verb in cli._COMMANDS
    if verb in cli._TRAINER:
        recipes = [value for option, value in pairwise(rest) if option == "-c"]
        assert all((ROOT / recipe).is_file() for recipe in recipes)
    else:
        cli._parse(verb, rest)  # raises on a wrong option


@pytest.mark.parametrize("verb", sorted(set(re.findall(r"`hypergen (\w+)", README))))
def test_verbs_in_the_text_exist(verb):
    assert verb in cli._names()


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_compile(code):
    compile(code, "README.md", "exec")


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:|#)([^)]+)\)", README))))
def test_links_lead_to_files(link):
    assert (ROOT / link).exists()


def test_the_two_commands_come_first_and_ci_finds_its_own():
    assert [words[1] for words in commands("make")][:2] == ["demo", "test"]
    assert blocks("bash")[0].splitlines()[:2] == ["make demo", "make test"]
    assert commands("hypergen")
    assert blocks("python")
