"""The whole import: metadata, quarantine, strictness, a second run, the command."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from import_sources import reasons, state

from hypergen.errors import RunError, UsageError
from hypergen.zoo.importing import import_zoo, importer
from hypergen.zoo.importing.command import add_options, import_command
from hypergen.zoo.store import Header, Zoo, ZooWriter, verify_zoo


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for seed in (1, 2):
        (folder / f"seed{seed}").mkdir(parents=True)
        for step in (10, 20):
            torch.save(state(1000 * seed + step), folder / f"seed{seed}/step-{step}.pt")
    return folder


def mapping(tmp_path, text: str):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    return path


def test_rows_hold_what_path_and_mapping_say(tmp_path, source):
    text = r"""
    tasks: {digits: {descriptions: [Name the digit.], family: vision}}
    rules:
    - regex: (?P<run>seed\d+)/step-(?P<step>\d+)
      task: digits
      hyperparameters: {lr: 0.1}
    - path: seed1/step-20.pt
      metrics: {test: {accuracy: 0.75}}
      parent: seed0
      descriptions: ['Which digit is it?']
    """
    import_zoo(
        source, tmp_path / "zoo", mapping=mapping(tmp_path, text), name="digits", licence="MIT"
    )
    zoo = Zoo(tmp_path / "zoo")
    assert (zoo.header.name, zoo.header.licence) == ("digits", "MIT")
    assert zoo.header.provenance["made_by"] == "hypergen zoo import"
    assert [(row.run, row.step, row.seed) for row in zoo] == [
        ("seed1", 10, 1),
        ("seed1", 20, 1),
        ("seed2", 10, 2),
        ("seed2", 20, 2),
    ]
    assert {row.task for row in zoo} == {"digits"}
    assert zoo.tasks["digits"].descriptions == ("Name the digit.", "Which digit is it?")
    assert zoo.tasks["digits"].family == "vision"
    row = zoo.rows[1]
    assert row.hyperparameters == {"lr": 0.1}
    assert row.metrics == {"test": {"accuracy": 0.75}}
    assert row.parent == "seed0"
    assert row.metadata["source"] == "seed1/step-20.pt"
    assert str(tmp_path) not in (tmp_path / "zoo/manifest/000000.jsonl").read_text()


def test_a_second_import_appends_what_is_new(tmp_path, source):
    rules = mapping(tmp_path, "- {glob: '**', task: t, descriptions: [One.]}")
    first = import_zoo(source, tmp_path / "zoo", mapping=rules)
    assert first.counts["taken"] == 4
    before = {p: p.read_bytes() for p in (tmp_path / "zoo").rglob("*") if p.is_file()}
    again = import_zoo(source, tmp_path / "zoo", mapping=rules, strict=True)
    assert again.counts["known"] == 4
    assert again.counts["taken"] == 0
    assert {p: p.read_bytes() for p in (tmp_path / "zoo").rglob("*") if p.is_file()} == before
    torch.save(state(99), source / "seed2/step-30.pt")
    report = import_zoo(source, tmp_path / "zoo", mapping=rules)
    assert [entry.path for entry in report.of("taken")] == ["seed2/step-30.pt"]
    zoo = Zoo(tmp_path / "zoo")
    assert len(zoo) == 5
    assert len(zoo.architectures) == 1
    assert verify_zoo(tmp_path / "zoo") == []


def test_moved_files_are_known_by_their_numbers_and_changed_ones_are_not(tmp_path, source):
    import_zoo(source, tmp_path / "zoo")
    (source / "seed1").rename(source / "seed9")
    torch.save(state(77), source / "seed2/step-10.pt")
    report = import_zoo(source, tmp_path / "zoo")
    assert report.counts["known"] == 3
    assert reasons(report) == {
        "seed2/step-10.pt": "run 'seed2', step 10 is taken by the zoo, which has other numbers: "
        "give it another run or step in a mapping file"
    }


def test_nan_is_quarantined_and_reported(tmp_path, source):
    bad = state(5)
    bad["0.bias"][1] = float("nan")
    torch.save(bad, source / "seed1/step-30.pt")
    report = import_zoo(source, tmp_path / "zoo")
    assert [entry.path for entry in report.of("quarantined")] == ["seed1/step-30.pt"]
    assert report.counts["taken"] == 4
    zoo = Zoo(tmp_path / "zoo")
    assert len(zoo) == 4
    assert [row.step for row in zoo.quarantined] == [30]
    assert import_zoo(source, tmp_path / "zoo").counts["known"] == 5


def test_strict_writes_nothing_if_anything_is_skipped(tmp_path, source):
    torch.save(state(2010), source / "seed2/copy.pt")
    with pytest.raises(UsageError, match=r"strict: 1 of .* seed2/step-10.pt: a duplicate"):
        import_zoo(source, tmp_path / "zoo", strict=True)
    assert not (tmp_path / "zoo").exists()
    (source / "seed2/copy.pt").unlink()
    rules = mapping(tmp_path, "- {glob: 'seed3/*', task: t}")
    with pytest.raises(UsageError, match=r"rule 1 \(glob 'seed3/\*'\): fits no checkpoint"):
        import_zoo(source, tmp_path / "zoo", strict=True, mapping=rules)
    report = import_zoo(source, tmp_path / "zoo", mapping=rules)
    assert len(report.unmatched) == 1
    assert "rules that fit nothing" in str(report)


def test_memory_is_bounded_by_parts(tmp_path, source, monkeypatch):
    sizes = []
    empty = torch.empty

    def measured(*shape, **kwargs):
        sizes.append(shape)
        return empty(*shape, **kwargs)

    monkeypatch.setattr(importer.torch, "empty", measured)
    import_zoo(source, tmp_path / "zoo", part_bytes=300)
    zoo = Zoo(tmp_path / "zoo")
    assert zoo.spec.numel * 4 * 2 <= 300 < zoo.spec.numel * 4 * 3
    assert [shape for shape in sizes if len(shape) == 2] == [(2, zoo.spec.numel)] * 2
    assert len(list((tmp_path / "zoo/manifest").iterdir())) == 2
    whole = tmp_path / "whole"
    import_zoo(source, whole)
    assert torch.equal(Zoo(whole).flat(), zoo.flat())


def test_an_interrupted_import_goes_on(tmp_path, source, monkeypatch):
    append = ZooWriter.append

    def once(self, blocks):
        if self.done:
            raise KeyboardInterrupt
        return append(self, blocks)

    monkeypatch.setattr(ZooWriter, "append", once)
    with pytest.raises(KeyboardInterrupt):
        import_zoo(source, tmp_path / "zoo", part_bytes=300)
    monkeypatch.undo()
    report = import_zoo(source, tmp_path / "zoo", part_bytes=300)
    assert report.counts["known"] == 2
    assert report.counts["taken"] == 2
    assert verify_zoo(tmp_path / "zoo") == []


def test_a_file_that_changes_between_plan_and_write_is_noticed(tmp_path, source, monkeypatch):
    write = importer._write

    def late(*args):
        torch.save(state(50), source / "seed1/step-10.pt")
        write(*args)

    monkeypatch.setattr(importer, "_write", late)
    with pytest.raises(RunError, match=r"step-10.pt was changed while it was being imported"):
        import_zoo(source, tmp_path / "zoo")


def test_the_same_sources_give_the_same_zoo(tmp_path, source):
    for name in ("one", "two"):
        import_zoo(source, tmp_path / name / "zoo")
    files = [
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (tmp_path / "one", tmp_path / "two")
    ]
    assert files[0] == files[1]


def test_zoos_and_options_that_do_not_go_together(tmp_path, source):
    import_zoo(source, tmp_path / "zoo", licence="MIT")
    with pytest.raises(UsageError, match=r"has the licence 'MIT' already, not 'Apache-2.0'"):
        import_zoo(source, tmp_path / "zoo", licence="Apache-2.0")
    ZooWriter(tmp_path / "built", Header("built", parts=3)).close()
    with pytest.raises(UsageError, match="holds a zoo that was built by a recipe"):
        import_zoo(source, tmp_path / "built")
    with pytest.raises(UsageError, match="kind is auto, peft, state_dict, lightning, not 'pfet'"):
        import_zoo(source, tmp_path / "zoo", kind="pfet")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.md").write_text("mine")
    with pytest.raises(UsageError, match="holds files but no zoo"):
        import_zoo(source, tmp_path / "full")


def test_tasks_that_contradict_each_other(tmp_path, source):
    both = """
    - {glob: 'seed1/*', task: t, family: a}
    - {glob: 'seed2/*', task: t, family: b}
    """
    with pytest.raises(UsageError, match="the task 't' is of the families 'a' and 'b'"):
        import_zoo(source, tmp_path / "zoo", mapping=mapping(tmp_path, both))
    words = "- {glob: '**', descriptions: [One.]}"
    with pytest.raises(UsageError, match="gives it descriptions but no task"):
        import_zoo(source, tmp_path / "zoo", mapping=mapping(tmp_path, words))


def command(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return import_command(argparse.Namespace(**vars(parser.parse_args(words)), json=None))


def test_the_command_prints_a_table_and_returns_the_report(tmp_path, source, capsys):
    torch.save({"state_dict": state(2020), "epoch": 3}, source / "seed2/z-copy.pt")
    (source / "notes.npz").write_bytes(b"")
    result = command(str(source), "--out", str(tmp_path / "zoo"), "--licence", "MIT")
    text = capsys.readouterr().out
    assert "taken             4  written to the zoo" in text
    assert "skipped           2  not written" in text
    assert "  seed2/z-copy.pt: a duplicate: it has the numbers of seed2/step-20.pt" in text
    assert "  1.num_batches_tracked (int64) (4 checkpoints)" in text
    assert "  notes.npz: .npz files are foreign" in text
    assert result["exit_code"] == 0
    assert result["counts"]["taken"] == 4
    assert result["architectures"] == {"network-35": 4}
    assert len(result["entries"]) == 6
    json.dumps(result, allow_nan=False)
    assert command(str(source), "--out", str(tmp_path / "zoo"))["exit_code"] == 0


def test_the_exit_code_says_that_nothing_was_taken(tmp_path, source, capsys):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.pt").write_bytes(b"nothing")
    assert command(str(bad), "--out", str(tmp_path / "zoo"))["exit_code"] == 1
    assert "a.pt: it is no file of torch.save" in capsys.readouterr().out
    assert not (tmp_path / "zoo").exists()


def test_a_long_report_is_cut_and_says_so(tmp_path, source):
    for i in range(30):
        (source / f"{i:02d}.npz").write_bytes(b"")
    text = str(import_zoo(source, tmp_path / "zoo"))
    assert "… and 10 more; --json lists them all" in text
    assert text.count(".npz files are foreign") == 20
