"""The notebooks run, are short, and are stored without their outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "experiments").glob("*.ipynb"))
CODE_LINES = {"01_quickstart": 40, "02_zoos": 50}
# What makes a notebook small enough for a test: text of a cell → what stands there instead.
SHRUNKEN = {
    "01_quickstart": {
        "DigitsDataModule(tasks_per_batch=96, samples_per_task=16, ": (
            "DigitsDataModule(tasks_per_batch=4, samples_per_task=2, encoder='hashing', "
            "n_subsets=170, n_composed=10, wordings_per_task=2, pretrain_steps=20, "
        ),
        "latents=48, dim=16, heads=1, hidden=384": "latents=2, dim=4, heads=1, hidden=16",
        "max_steps=800": "max_steps=2, accelerator='cpu', enable_progress_bar=False",
    },
    "02_zoos": {
        '"--steps=200"': ('"--steps=3", "--runs=24", "--runs_per_job=24", "--problem.n_tasks=24"'),
        'encoder="text", split_by="task", batch_size=64': "encoder='hashing', batch_size=4",
        "latents=48, dim=16, heads=1, hidden=384": "latents=2, dim=4, heads=1, hidden=16",
        "max_steps=1500": "max_steps=2, accelerator='cpu'",
    },
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


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Runs a shrunken notebook in a folder of its own; returns the outputs of its cells."""
    # Images need matplotlib's inline backend, which the tests' own choice of none would hide.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    def run(name: str) -> list[nbformat.NotebookNode]:
        path = next(path for path in NOTEBOOKS if path.stem == name)
        monkeypatch.setenv("PYTHONPATH", str(path.parent.parent))
        notebook = read(path)
        shrink(notebook, SHRUNKEN[name])
        work = tmp_path / "experiments"
        work.mkdir()
        (tmp_path / "configs").symlink_to(path.parent.parent / "configs")
        where = {"metadata": {"path": str(work)}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
        found = [output for cell in code(notebook) for output in cell.outputs]
        assert sum("image/png" in output.get("data", {}) for output in found) == 3
        return found

    return run


def test_the_quickstart_writes_an_adapter(outputs, tmp_path):
    difference = outputs("01_quickstart")[-1]["data"]["text/plain"]
    assert 0 <= float(difference) < 1e-5  # stock PEFT's logits and hypergen's own
    adapter = tmp_path / "runs" / "notebook" / "adapter"
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        file.name for file in adapter.iterdir()
    }


def test_the_zoo_is_built_and_imitated(outputs, tmp_path):
    accuracy = outputs("02_zoos")[-1]["data"]["text/plain"]
    assert all(f"'{name}'" in accuracy for name in ("generated", "nearest", "trained"))
    assert (tmp_path / "runs" / "zoo_notebook" / "zoo.json").exists()
