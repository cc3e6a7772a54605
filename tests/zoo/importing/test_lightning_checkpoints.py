"""Lightning checkpoints: runs with steps, hyperparameters and epochs."""

from __future__ import annotations

import pytest
import torch
from import_sources import reasons, state

from hypergen.zoo.importing import import_zoo
from hypergen.zoo.store import Zoo


def save(path, seed: int, step: int, **more) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "pytorch-lightning_version": "2.5.0",
        "epoch": step // 10,
        "global_step": step,
        "state_dict": {f"net.{name}": value for name, value in state(seed).items()},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1}]}],
        "hyper_parameters": {"lr": 0.1, "hidden": [3], "optimizer": {"betas": (0.9, 0.99)}},
    }
    torch.save({**content, **more}, path)


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    for version in (0, 1):
        for step in (10, 20):
            name = f"epoch={step // 10}-step={step}.ckpt"
            save(folder / f"version_{version}/checkpoints/{name}", 1000 * version + step, step)
    return folder


def test_a_run_folder_is_one_run_with_steps(tmp_path, logs):
    save(logs / "version_0/checkpoints/best-val_loss=0.31.ckpt", 7, 15)
    report = import_zoo(logs, tmp_path / "zoo")
    assert reasons(report) == {}
    zoo = Zoo(tmp_path / "zoo")
    runs = sorted((row.run, row.step) for row in zoo)
    expected = [("version_0", 10), ("version_0", 15), ("version_0", 20)]
    assert runs == [*expected, ("version_1", 10), ("version_1", 20)]
    row = zoo.select(run="version_1", step=20).rows[0]
    assert row.hyperparameters["lr"] == 0.1
    assert row.hyperparameters["optimizer"] == {"betas": [0.9, 0.99]}
    assert row.metadata["epoch"] == 2
    assert torch.equal(
        zoo.select(run="version_1", step=20).slot("net.0.weight")[0], state(1020)["0.weight"]
    )


def test_the_last_checkpoint_is_a_duplicate_of_the_newest(tmp_path, logs):
    save(logs / "version_0/checkpoints/last.ckpt", 20, 20)
    report = import_zoo(logs, tmp_path / "zoo")
    folder = "version_0/checkpoints"
    assert reasons(report) == {
        f"{folder}/last.ckpt": f"a duplicate: it has the numbers of {folder}/epoch=2-step=20.ckpt"
    }


def test_two_networks_at_one_step_of_a_run_are_told_apart_by_the_user(tmp_path, logs):
    save(logs / "version_0/checkpoints/other.ckpt", 99, 20)
    report = import_zoo(logs, tmp_path / "zoo")
    (reason,) = reasons(report).values()
    assert reason.startswith("run 'version_0', step 20 is taken by version_0/checkpoints/epoch=2")
    rules = tmp_path / "map.yaml"
    rules.write_text("- {glob: '**/other.ckpt', run: other}")
    report = import_zoo(logs, tmp_path / "zoo", mapping=rules)
    assert report.counts["taken"] == 1
    assert report.counts["known"] == 4


def test_what_json_cannot_hold_is_left_out_and_listed(tmp_path):
    given = {"lr": 0.1, "bound": float("inf"), "mean": torch.ones(2), "sizes": {1: 2}}
    save(tmp_path / "logs" / "a.ckpt", 0, 5, hyper_parameters=given)
    report = import_zoo(tmp_path / "logs", tmp_path / "zoo")
    row = Zoo(tmp_path / "zoo").rows[0]
    assert row.hyperparameters == {"lr": 0.1, "sizes": {"1": 2}}
    assert set(report.of("taken")[0].left_out) >= {
        "hyper_parameters.bound (float)",
        "hyper_parameters.mean (Tensor)",
        "net.1.num_batches_tracked (int64)",
    }


def test_hyperparameters_that_hold_themselves_are_a_reason(tmp_path):
    given: dict = {"lr": 0.1}
    given["self"] = given
    save(tmp_path / "logs" / "a.ckpt", 0, 5, hyper_parameters=given)
    save(tmp_path / "logs" / "b.ckpt", 1, 6)
    report = import_zoo(tmp_path / "logs", tmp_path / "zoo")
    assert reasons(report) == {"a.ckpt": "its hyper_parameters hold themselves"}


def test_only_lightning_is_taken_when_that_is_asked(tmp_path, logs):
    torch.save(state(5), logs / "plain.pt")
    (logs / "plain.safetensors").write_bytes(b"")
    report = import_zoo(logs, tmp_path / "zoo", kind="lightning")
    assert report.counts["taken"] == 4
    assert list(reasons(report)) == ["plain.pt"]
    assert "no 'pytorch-lightning_version'" in reasons(report)["plain.pt"]
    assert [e.path for e in report.of("ignored")] == ["plain.safetensors"]


def test_as_a_state_dict_it_is_a_file_like_any_other(tmp_path, logs):
    import_zoo(logs, tmp_path / "zoo", kind="state_dict")
    rows = Zoo(tmp_path / "zoo").rows
    assert {row.run for row in rows} == {"version_0", "version_1"}
    assert all(row.hyperparameters == {} for row in rows)
