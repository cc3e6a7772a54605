"""The table of systems, its command, and its copy in configs/README.md."""

from __future__ import annotations

import json
import re

import pytest

from hypergen import cli
from hypergen.methods import methods_markdown, methods_rows, methods_table
from hypergen.systems import CATEGORIES, SYSTEMS

IDS = {
    "adapters": ["A1", "A2", "A3", "A3b", *(f"A{i}" for i in range(4, 12))],
    "sampled": [f"B{i}" for i in range(1, 7)],
    "graphs": [f"C{i}" for i in range(1, 7)],
    "hypernetworks": [f"D{i}" for i in range(1, 11)],
}


def test_every_system_is_listed_once_in_order():
    assert {
        category: [system.id for system in SYSTEMS if system.category == category]
        for category in CATEGORIES
    } == IDS


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.id)
def test_what_a_row_says_is_there(system, root):
    assert system.maps
    assert system.status in ("available", "planned")
    for path in (system.recipe, system.code):
        assert path is None or (root / path).exists()
    assert (system.code is not None) == (system.status == "available")
    assert system.status == "available" or system.recipe is None


def test_papers_have_plausible_identifiers_that_agree_with_their_years():
    papers = [paper for system in SYSTEMS for paper in system.papers]
    for paper in papers:
        if paper.arxiv is not None:
            assert re.fullmatch(r"\d{2}(0[1-9]|1[0-2])\.\d{5}", paper.arxiv), paper
    identifiers = [paper.arxiv for paper in papers if paper.arxiv]
    assert len(identifiers) == len(set(identifiers))
    # Published first at a conference, on arXiv in 2023.
    late = {
        paper.name for paper in papers if paper.arxiv and f"20{paper.arxiv[:2]}" != str(paper.year)
    }
    assert late == {"hyperfan"}


def test_the_recipes_readme_is_the_table(root):
    text = (root / "configs" / "README.md").read_text(encoding="utf-8")
    assert text == methods_markdown(), "run: python -m hypergen.methods"


def test_the_command_prints_a_line_a_system(capsys):
    assert cli.main(["methods"]) == 0
    out = capsys.readouterr().out
    assert out == methods_table() + "\n"
    assert [line.split()[0] for line in out.splitlines()[1:]] == [system.id for system in SYSTEMS]


def test_the_command_gives_json(capsys):
    assert cli.main(["methods", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["methods"]
    assert rows == json.loads(json.dumps(methods_rows()))
    row = next(row for row in rows if row["id"] == "A3")
    assert row["name"] == "Text-to-LoRA"
    assert row["papers"] == [{"arxiv": "2506.06105", "name": "Text-to-LoRA", "year": 2025}]
    assert set(row) == {"id", "name", "category", "maps", "papers", "status", "recipe", "code"}
