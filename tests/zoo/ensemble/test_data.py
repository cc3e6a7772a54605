"""Image sources: splits, decoding, and errors that say what to do."""

from __future__ import annotations

import io

import pytest
import torch

from hypergen.errors import RunError, UsageError
from hypergen.zoo.ensemble import CIFAR10, MNIST, Digits


def picture(value: int, mode: str) -> bytes:
    from PIL import Image

    image = Image.new(mode, (4, 4), value if mode == "L" else (value, 0, 255 - value))
    image.putpixel((1, 0), 255 if mode == "L" else (255, 255, 255))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def write(folder, name: str, count: int, mode: str = "L", label: str = "label") -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    pytest.importorskip("PIL")
    images = [{"bytes": picture(10 * i % 256, mode), "path": None} for i in range(count)]
    table = pa.table({"image": images, label: [i % 10 for i in range(count)]})
    parquet.write_table(table, folder / f"{name}.parquet")


@pytest.fixture
def vision(tmp_path):
    for name, mode in (("mnist", "L"), ("cifar10", "RGB")):
        write(tmp_path, f"{name}-train", 40, mode)
        write(tmp_path, f"{name}-test", 20, mode)
    return tmp_path


def test_digits_are_split_and_standardised():
    data = Digits().load()
    sizes = {split: len(x) for split, x in data.images.items()}
    assert sizes == {"train": 1078, "val": 270, "test": 449}
    assert data.images["train"].shape[1:] == (1, 8, 8)
    assert data.images["train"].mean().abs() < 1e-5
    assert abs(data.images["train"].std() - 1) < 1e-4
    assert Digits().load() is data
    assert not torch.equal(Digits(seed=1).load().labels["test"], data.labels["test"])
    every = torch.cat(list(data.labels.values())).bincount()
    assert every.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize(("source", "channels"), [(MNIST, 1), (CIFAR10, 3)])
def test_parquet_files_become_splits(vision, source, channels):
    data = source(str(vision), val=0.25).load()
    sizes = {split: tuple(x.shape) for split, x in data.images.items()}
    shape = (channels, 4, 4)
    assert sizes == {"train": (30, *shape), "val": (10, *shape), "test": (20, *shape)}
    background = data.images["test"][:, 0, 3, 3]  # picture i is the i-th darkest
    assert data.labels["test"][background.argsort()].tolist() == [i % 10 for i in range(20)]
    assert (background.diff() < 0).any()  # not in the order of the file
    both = torch.cat([data.labels["train"], data.labels["val"]])
    assert both.bincount().tolist() == [4] * 10
    train = data.images["train"]
    torch.testing.assert_close(train.mean((0, 2, 3)), torch.zeros(channels), atol=1e-5, rtol=0)
    # The white pixel is at row 0, column 1, and the brightest.
    assert (train[:, :, 0, 1] == train.amax((2, 3))).all()


def test_images_may_be_fewer_and_smaller(vision):
    data = MNIST(str(vision), size=2, samples=7).load()
    assert data.images["train"].shape == (7, 1, 2, 2)
    assert data.images["val"].shape == (4, 1, 2, 2)
    whole = MNIST(str(vision), samples=7).load()
    assert torch.equal(whole.labels["train"], data.labels["train"])


def test_the_folder_comes_from_the_environment(vision, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "vision").symlink_to(vision)
    monkeypatch.setenv("HYPERGEN_DATA", str(tmp_path / "data"))
    assert len(MNIST(seed=5).load().labels["test"]) == 20
    monkeypatch.delenv("HYPERGEN_DATA")
    with pytest.raises(RunError, match=r"mnist-train\.parquet is needed.*HYPERGEN_DATA"):
        MNIST(seed=6).load()


def test_missing_and_broken_files_are_named(vision):
    (vision / "mnist-test.parquet").unlink()
    with pytest.raises(RunError, match=r"mnist-test\.parquet does not exist: put"):
        MNIST(str(vision)).load()
    (vision / "mnist-train.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(RunError, match=r"mnist-train\.parquet is not a parquet file"):
        MNIST(str(vision)).load()
    write(vision, "cifar10-test", 3, "RGB", label="fine_label")
    with pytest.raises(RunError, match=r"cifar10-test\.parquet.*'label'"):
        CIFAR10(str(vision)).load()


@pytest.mark.parametrize("options", [{"val": 0.0}, {"val": 1.0}, {"samples": 0}, {"val": 0.01}])
def test_settings_that_leave_a_split_empty_are_refused(vision, options):
    with pytest.raises(UsageError, match=r"split|share"):
        MNIST(str(vision), **options).load()
