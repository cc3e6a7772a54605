"""Every zoo recipe in `configs/` loads and makes a zoo."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import yaml

from hypergen import cli
from hypergen.zoo.build import NetworkZoo, read_recipe
from hypergen.zoo.networks import Network
from hypergen.zoo.store import Zoo, verify_zoo

ROOT = Path(__file__).parents[3]
CONFIGS = [
    path
    for path in sorted((ROOT / "configs").glob("zoo_*.yaml"))
    if yaml.safe_load(path.read_text())["recipe"] == "NetworkZoo"
]
SMALL = ["--runs", "3", "--runs_per_job", "2", "--steps", "2", "--save_steps", "[0, 2]"]
SMALL += ["--batch_size", "4", "--evaluation_samples", "8"]
SIZES = {"mnist": (28, 28), "cifar10": (32, 32, 3)}


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """Random pictures in the files that the recipes read."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data")
    (folder / "vision").mkdir()
    for name, size in SIZES.items():
        for part, count in (("train", 60), ("test", 20)):
            pictures = []
            for pixels in random.integers(0, 256, (count, *size), dtype=np.uint8):
                file = io.BytesIO()
                image.fromarray(pixels).save(file, "png")
                pictures.append({"bytes": file.getvalue(), "path": None})
            labels = random.integers(0, 10, count).tolist()
            table = pyarrow.table({"image": pictures, "label": labels})
            parquet.write_table(table, folder / "vision" / f"{name}-{part}.parquet")
    return folder


def test_there_are_recipes():
    names = {path.stem for path in CONFIGS}
    assert names >= {"zoo_digits_mlp", "zoo_digits_cnn", "zoo_mnist_cnn", "zoo_cifar_cnn"}
    assert names >= {"zoo_cifar_vit", "zoo_mnist_inr"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_recipe_makes_a_zoo(path, tmp_path, vision, monkeypatch):
    monkeypatch.setenv("HYPERGEN_DATA", str(vision))
    words = ["-c", str(path), "--out", str(tmp_path / "zoo"), "--workers", "1", *SMALL]
    if "inr" in path.stem:
        words += ["--problem.images", "5"]
    assert cli.main(["zoo", "build", *words]) == 0
    assert verify_zoo(tmp_path / "zoo") == []
    zoo = Zoo(tmp_path / "zoo")
    assert len(zoo) + len(zoo.quarantined) == 3 * 2
    assert zoo.header.licence
    for row in zoo:
        assert len(zoo.tasks[row.task].descriptions) >= 2
        config = zoo.header.architectures[row.architecture].config
        assert Network.from_dict(config).spec() == zoo.header.architectures[row.architecture].spec


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_recipe_is_diverse_and_says_how_to_run_it(path):
    recipe = read_recipe(path)
    assert isinstance(recipe, NetworkZoo)
    assert recipe.runs >= 200
    lines = path.read_text().splitlines()
    assert any(f"hypergen zoo build -c configs/{path.name}" in line for line in lines[:6])
    assert sum(line.strip() == "" for line in lines) < len(lines) / 4
