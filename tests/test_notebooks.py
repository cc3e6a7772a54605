"""The notebooks run, are short, and are stored without their outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "experiments").glob("*.ipynb"))
CODE_LINES = {"01_quickstart": 40}
# What makes a notebook small enough for a test: text of a cell → what stands there instead.
SHRUNKEN = {
    "01_quickstart": {
        "DigitsDataModule(tasks_per_batch=96, samples_per_task=16, ": (
            "DigitsDataModule(tasks_per_batch=4, samples_per_task=2, encoder='hashing', "
            "n_subsets=170, n_composed=10, wordings_per_task=2, pretrain_steps=20, "
        ),
        "latents=48, dim=16, heads=1, hidden=384": "latents=2, dim=4, heads=1, hidden=16",
        "max_steps=800": "max_steps=2, accelerator='cpu', enable_progress_bar=False",
    }
}


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shrink(notebook: nbformat.NotebookNode, replacements: dict[str, str]) -> None:
    for old, new in replacements.items():
        holders = [cell for cell in code(notebook) if old in cell.source]
        assert len(holders) == 1, f"{old!r} stands in {len(holders)} cells: mend SHRUNKEN"
        holders[0].source = holders[0].source.replace(old, new)


def test_every_notebook_is_known():
    assert [path.stem for path in NOTEBOOKS] == sorted(SHRUNKEN) == sorted(CODE_LINES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_short_and_stored_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    lines = [line.strip() for cell in code(notebook) for line in cell.source.splitlines()]
    assert len([line for line in lines if line and line[0] != "#"]) < CODE_LINES[path.stem]
    for cell in code(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert not any("def " in line or "class " in line for line in lines)  # no logic: use hypergen


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_draws(path, tmp_path, monkeypatch):
    # Images need matplotlib's inline backend, which the tests' own choice of none would hide.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(path.parent.parent))
    notebook = read(path)
    shrink(notebook, SHRUNKEN[path.stem])
    work = tmp_path / "experiments"
    work.mkdir()
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(work)}}
    )
    client.execute()
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    difference = code(notebook)[-1].outputs[-1]["data"]["text/plain"]
    assert 0 <= float(difference) < 1e-5  # stock PEFT's logits and hypergen's own
    adapter = tmp_path / "runs" / "notebook" / "adapter"
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        file.name for file in adapter.iterdir()
    }
