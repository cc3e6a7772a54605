from __future__ import annotations

import argparse

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_zoo import tiny_block, tiny_blocks, tiny_header, write_tiny_zoo, zoo_files

from hypergen._utils.io import write_text
from hypergen.errors import RunError
from hypergen.zoo.store import Zoo, ZooWriter, verify_zoo
from hypergen.zoo.store.seal import open_lines, seal_lines
from hypergen.zoo.store.verify import verify_command


def read_all(folder):
    zoo = Zoo(folder, verify="open")
    return [zoo.select(architecture=key).flat() for key in zoo.architectures]


def test_a_good_zoo_has_no_damage(zoo_folder):
    assert verify_zoo(zoo_folder) == []


def test_every_flipped_byte_is_found_and_refused(tmp_path):
    """All bytes of a zoo, one flip each at a random bit."""
    folder = write_tiny_zoo(tmp_path / "zoo", parts=1)
    for name, data in zoo_files(folder).items():
        # Every byte of the small files; every 7th byte of long texts, which one hash covers.
        for place in range(0, len(data), 1 if name.endswith(".safetensors") else 7):
            changed = bytearray(data)
            changed[place] ^= 1 << (place % 8)
            (folder / name).write_bytes(changed)
            with pytest.raises(RunError):
                read_all(folder)
            assert any(damage.path == name for damage in verify_zoo(folder)), (name, place)
        (folder / name).write_bytes(data)
    assert verify_zoo(folder) == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_truncation_is_found_and_refused(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "truncation"
    if not folder.exists():
        write_tiny_zoo(folder, parts=2)
    files = zoo_files(folder)
    name = data.draw(st.sampled_from(sorted(files)))
    keep = data.draw(st.integers(0, len(files[name]) - 1))
    (folder / name).write_bytes(files[name][:keep])
    try:
        with pytest.raises(RunError):
            read_all(folder)
        assert any(damage.path == name for damage in verify_zoo(folder))
    finally:
        (folder / name).write_bytes(files[name])


def test_the_checkpoint_that_is_hit_is_named(zoo_folder):
    zoo = Zoo(zoo_folder)
    row = zoo.rows[2]
    path = zoo_folder / row.shard
    data = bytearray(path.read_bytes())
    spec = zoo.header.architectures[row.architecture].spec
    rows = sum(r.shard == row.shard for r in zoo.rows)
    data[len(data) - 4 * spec.numel * (rows - row.index) + 1] ^= 4
    path.write_bytes(data)
    (damage,) = verify_zoo(zoo_folder)
    assert damage.path == row.shard
    assert damage.what == f"the numbers of {row.label} (row {row.index}) are damaged"


def test_a_missing_part_and_a_missing_shard_are_named(zoo_folder):
    (zoo_folder / "manifest" / "000001.jsonl").unlink()
    shard = next((zoo_folder / "shards").glob("000002-1-*"))
    shard.unlink()
    damages = {damage.path: damage.what for damage in verify_zoo(zoo_folder)}
    assert "the part is missing" in damages["manifest/000001.jsonl"]
    assert "is missing" in damages[f"shards/{shard.name}"]
    assert "no part of the manifest lists" in damages["shards/000001-0-small-0.safetensors"]


def test_a_gap_in_an_open_zoo_is_found(tmp_path):
    with ZooWriter(tmp_path / "zoo", tiny_header(None)) as writer:
        for part in range(3):
            writer.append(tiny_blocks(part))
    (tmp_path / "zoo" / "manifest" / "000001.jsonl").unlink()
    assert "manifest/000001.jsonl" in {damage.path for damage in verify_zoo(tmp_path / "zoo")}


def test_rows_without_weights_and_weights_without_rows(zoo_folder):
    path = zoo_folder / "manifest" / "000000.jsonl"
    head, rows = open_lines(path.read_bytes())
    rows[1]["index"] = 0  # shares the weights of row 0
    rows[2]["run"], rows[2]["step"] = rows[3]["run"], rows[3]["step"]
    rows[4]["task"] = "prime"
    write_text(path, seal_lines(head, rows))
    text = "\n".join(str(damage) for damage in verify_zoo(zoo_folder))
    assert "run 'small-0-0', step 10 has no weights of its own: row 0" in text
    assert "row 1 holds weights that the manifest does not list" in text
    assert "run 'small-0-1', step 10 is listed twice" in text
    assert "unknown task 'prime'" in text


def test_foreign_files_are_found(zoo_folder):
    (zoo_folder / "notes.txt").write_text("mine")
    (damage,) = verify_zoo(zoo_folder)
    assert str(damage) == "notes.txt: this file does not belong to the zoo"


def test_nan_outside_the_quarantine_is_found(tmp_path, monkeypatch):
    import torch

    from hypergen.zoo.store import writer as module

    block = tiny_block("small", 0)
    block.weights[0, 0] = float("nan")
    monkeypatch.setattr(module.torch, "isfinite", lambda x: torch.ones_like(x, dtype=torch.bool))
    with ZooWriter(tmp_path / "zoo", tiny_header(1)) as writer:
        writer.write(0, [block])
    monkeypatch.undo()
    (damage,) = verify_zoo(tmp_path / "zoo")
    assert "holds NaN or infinity but is not quarantined" in damage.what


def test_the_command(zoo_folder, capsys):
    args = argparse.Namespace(zoo=zoo_folder, json=None)
    assert verify_command(args)["exit_code"] == 0
    assert "intact" in capsys.readouterr().out
    next((zoo_folder / "shards").iterdir()).unlink()
    result = verify_command(args)
    assert (result["exit_code"], result["intact"], len(result["damages"])) == (1, False, 1)
    assert "is missing" in capsys.readouterr().out


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RunError, match="is not a folder"):
        verify_zoo(tmp_path / "none")
