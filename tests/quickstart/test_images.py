import numpy as np
import pytest
from sklearn.datasets import load_digits

from hypergen.quickstart.images import load_images


def test_splits_are_a_stratified_partition_of_the_real_images() -> None:
    images = load_images(seed=0)
    parts = [(images.train, images.train_labels), (images.val, images.val_labels),
             (images.test, images.test_labels)]  # fmt: skip
    for x, y in parts:
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert x.shape == (len(y), 64)
        share = np.bincount(y, minlength=10) / len(y)
        np.testing.assert_allclose(share, 0.1, atol=0.01)
    data = load_digits()
    restored = np.concatenate([x for x, _ in parts]) * images.std + images.mean
    labels = np.concatenate([y for _, y in parts])
    grey = np.rint(restored * 16).astype(int)
    ours = sorted((y, *row) for row, y in zip(grey, labels, strict=True))
    theirs = sorted((y, *row.astype(int)) for row, y in zip(data.data, data.target, strict=True))
    assert ours == theirs


def test_training_pixels_are_standardised() -> None:
    images = load_images(seed=1)
    assert abs(float(images.train.mean())) < 1e-4
    assert abs(float(images.train.std()) - 1) < 1e-4


def test_seed_decides_the_split() -> None:
    a, b, c = load_images(seed=0), load_images(seed=0), load_images(seed=1)
    np.testing.assert_array_equal(a.test, b.test)
    np.testing.assert_array_equal(a.train_labels, b.train_labels)
    assert not np.array_equal(a.test, c.test)


@pytest.mark.parametrize(("val", "test"), [(0.0, 0.2), (0.5, 0.5), (0.1, -0.1), (0.001, 0.2)])
def test_empty_splits_are_refused(val: float, test: float) -> None:
    with pytest.raises(ValueError, match="val="):
        load_images(val=val, test=test)
