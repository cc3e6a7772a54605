"""The report: whole, self-contained, with the numbers of the evaluation and honest words."""

from __future__ import annotations

import base64
import copy
import json
import re
import subprocess
import sys

import pytest

from hypergen.evaluation import evaluate, write_report
from hypergen.evaluation.evaluate import Split
from hypergen.evaluation.report import draw

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "report"
    path = write_report(folder, evaluation, {"text": "say <yes> & no", "steps": [1, 2]})
    assert path == folder / "report.html"
    return folder


def test_the_files_are_there(folder):
    assert {p.name for p in folder.iterdir()} == {"report.html", "metrics.json", "plots"}
    names = {p.name for p in (folder / "plots").iterdir()}
    assert names == {
        "means.png",
        "by_task.png",
        "calibration.png",
        "tasks_heldout_tasks.png",
        "tasks_heldout_wordings.png",
        "tasks_seen_wordings.png",
        "weights_heldout_tasks.png",
        "weights_heldout_wordings.png",
        "weights_seen_wordings.png",
    }
    assert all((folder / "plots" / name).read_bytes().startswith(PNG) for name in names)


def test_the_page_loads_nothing(folder):
    html = (folder / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)|url\(|@import|<script|<link|https?://", html)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert [base64.b64decode(p) for p in pictures] == [
        (folder / "plots" / name).read_bytes()
        for name in (
            "means.png",
            "by_task.png",
            "tasks_heldout_tasks.png",
            "tasks_heldout_wordings.png",
            "tasks_seen_wordings.png",
            "weights_heldout_tasks.png",
            "weights_heldout_wordings.png",
            "weights_seen_wordings.png",
            "calibration.png",
        )
    ]
    assert html.count("<figcaption>") == len(pictures)
    assert html.count('alt="') == len(pictures)


def test_the_page_says_the_numbers_and_where_it_loses(folder, evaluation):
    html = (folder / "report.html").read_text()
    for split in evaluation.splits.values():
        for method, value in split.means.items():
            low, high = split.ci[method]
            assert f"{value:.3f}<small>{low:.3f} to {high:.3f}</small>" in html
    notes = evaluation.notes()
    assert notes
    for note in notes:
        assert note.replace("&", "&amp;") in html
    assert "say &lt;yes&gt; &amp; no" in html
    assert "<yes>" not in html
    assert '"seed": 0' in html.replace("&quot;", '"')


def test_the_metrics_hold_the_agreed_keys_and_more(folder, evaluation):
    found = json.loads((folder / "metrics.json").read_text())
    assert set(found) == {"splits", "tasks", "seconds", "details", "extras"}
    own = json.loads(json.dumps(evaluation.to_dict()))
    assert found["splits"] == own["splits"]
    assert found["tasks"] == own["tasks"]
    assert found["extras"]["steps"] == [1, 2]
    assert found["details"]["notes"] == evaluation.notes()
    assert 0 <= found["details"]["calibration"]["error"] < 1
    assert found["details"]["splits"]["heldout_tasks"]["wordings"] == "train"


def test_writing_again_replaces_the_plots_and_nothing_else(folder, evaluation):
    (folder / "mine.txt").write_text("kept")
    (folder / "plots" / "old.png").write_bytes(PNG)
    before = (folder / "plots" / "means.png").read_bytes()
    write_report(folder, evaluation)
    assert (folder / "mine.txt").read_text() == "kept"
    assert not (folder / "plots" / "old.png").exists()
    assert (folder / "plots" / "means.png").read_bytes() == before
    (folder / "mine.txt").unlink()


def test_one_task_without_baselines_can_be_drawn(toy, tmp_path):
    generator = copy.deepcopy(toy.generator)
    generator.gain = None
    splits = {"a/b <c>": Split([25], "train", 1)}
    small = evaluate(generator, toy.target, toy.suite, splits, oracle_steps=0)
    assert set(draw(small)) == {"means", "by_task", "tasks_a-b--c-"}
    html = write_report(tmp_path / "r", small).read_text()
    assert "a/b &lt;c&gt;" in html


def test_the_package_does_not_import_matplotlib():
    code = "import hypergen.evaluation, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
