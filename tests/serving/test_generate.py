"""`hypergen generate`: folders, inputs, errors, and equal bytes in other processes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from generating import build, options, scrambled

from hypergen import cli, pretrained
from hypergen.conditions import ConditionEncoder, HashingEncoder
from hypergen.errors import ConditionError, RunError, UsageError
from hypergen.serving import check_export, generate_command, load_adapter
from hypergen.specs import FullSpec, LoRASpec, WeightSpec
from hypergen.targets import LoRATarget


def test_one_sentence_gives_one_folder_that_stock_peft_loads(run, tmp_path, capsys):
    args = options(run, tmp_path / "a", text="is it even")
    args.json = None
    found = generate_command(args)
    assert found["out"] == [str(tmp_path / "a")]
    out = capsys.readouterr().out
    assert out.split() == [
        str(tmp_path / "a"),
        "expected",
        "gain",
        f"{found['expected_gain'][0]:+.3f}",
    ]
    assert set(found["sha256"]) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    for name, digest in found["sha256"].items():
        assert hashlib.sha256((tmp_path / "a" / name).read_bytes()).hexdigest() == digest
    model = build()
    spec = LoRASpec(model, ["0", "2"], r=2)
    assert WeightSpec.from_dict(found["spec"]) == spec
    weights = load_adapter(tmp_path / "a", spec)
    assert check_export(weights, LoRATarget(model, spec), tmp_path / "a", torch.randn(5, 6)) <= 1e-5
    assert "is it even" in (tmp_path / "a" / "README.md").read_text()


def test_several_sentences_and_draws_go_into_numbered_folders(run, tmp_path):
    texts = ["is it even", "is it odd"]
    found = generate_command(options(run, tmp_path / "a", text=texts, n=2))
    assert found["out"] == [str(tmp_path / "a" / f"{i:04d}") for i in range(4)]
    assert len(found["expected_gain"]) == 4
    cards = [(tmp_path / "a" / f"{i:04d}" / "README.md").read_text() for i in range(4)]
    assert [text in card for card in cards for text in texts] == [1, 0, 1, 0, 0, 1, 0, 1]
    single = generate_command(options(run, tmp_path / "b", text="is it odd"))
    name = "adapter_model.safetensors"
    spec = LoRASpec(build(), ["0", "2"], r=2)
    both = [load_adapter(folder, spec).flat() for folder in (found["out"][2], single["out"][0])]
    assert torch.allclose(*both, atol=1e-6)
    assert found["sha256"][f"0000/{name}"] == found["sha256"][f"0001/{name}"]  # deterministic


def test_shorter_results_replace_longer_ones_whole(run, tmp_path):
    out = tmp_path / "a"
    generate_command(options(run, out, text=["is it even", "is it odd"], n=2))
    generate_command(options(run, out, text=["is it even", "is it odd"]))
    assert sorted(p.name for p in out.iterdir()) == ["0000", "0001", "index.json"]
    generate_command(options(run, out, text="is it even"))
    assert (out / "adapter_config.json").exists()
    assert not (out / "0000").exists()


def test_an_index_says_what_each_folder_was_made_from(run, tmp_path):
    out = tmp_path / "a"
    found = generate_command(options(run, out, text=["is it even", "is it odd"], n=2))
    index = json.loads((out / "index.json").read_text())
    both = ["is it even"] * 2 + ["is it odd"] * 2
    assert index == dict(zip(("0000", "0001", "0002", "0003"), both, strict=True))
    digest = hashlib.sha256((out / "index.json").read_bytes()).hexdigest()
    assert found["sha256"]["index.json"] == digest
    generate_command(options(run, tmp_path / "b", text="is it even"))
    assert not (tmp_path / "b" / "index.json").exists()


def test_the_profile_and_the_seconds_are_in_the_result(run, tmp_path, capsys):
    found = generate_command(options(run, tmp_path / "a", text=["is it even", "is it odd"]))
    assert found["portable"] == []
    assert set(found["seconds"]) == {"load", "generate", "save"}
    assert all(value >= 0 for value in found["seconds"].values())
    scrambled(LoRASpec(build(), ["0", "2"], r=20)).save_pretrained(tmp_path / "g" / "generator")
    args = options(tmp_path / "g", tmp_path / "b", text="is it even")
    args.json = None
    (problem,) = generate_command(args)["portable"]
    assert problem.startswith("r is 20: start vLLM with --max-lora-rank 32")
    assert capsys.readouterr().err == f"note: {problem}\n"


def test_a_shipped_generator_is_found_by_name(run, tmp_path, monkeypatch, capsys):
    shutil.copytree(run / "generator", tmp_path / "shipped" / "tiny")
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["generate", "tiny", "--text", "is it even", "--out", "adapter"]) == 0
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
    capsys.readouterr()
    assert cli.main(["generate", "tine", "--text", "is it even", "--out", "b"]) == 2
    assert capsys.readouterr().err == (
        "hypergen: error: tine does not exist; the generators that ship are tiny\n"
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([""], "text 0 is empty: describe the task in a sentence"),
        (["is it even", "  "], "text 1 is empty: describe the task in a sentence"),
        (["word " * 600], "text 0 has 600 words; the encoder takes 512: shorten it"),
    ],
)
def test_descriptions_of_no_or_too_many_words_are_one_line_at_the_shell(
    run, tmp_path, capsys, texts, message
):
    words = [word for text in texts for word in ("--text", text)]
    assert cli.main(["generate", str(run), *words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"hypergen: error: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_lines_of_standard_input_are_sentences(run, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("is it even\n\n  is it odd \n"))
    assert len(generate_command(options(run, tmp_path / "a", text="-"))["out"]) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    with pytest.raises(UsageError, match="no sentence on standard input"):
        generate_command(options(run, tmp_path / "b", text="-"))


def test_a_generator_without_gain_states_none(tmp_path):
    spec = FullSpec(build())
    scrambled(spec).save_pretrained(tmp_path / "run" / "generator")
    found = generate_command(options(tmp_path / "run", tmp_path / "a", text="x"))
    assert found["expected_gain"] is None
    assert "model.safetensors" in found["sha256"]


def test_other_inputs_reach_an_encoder_that_takes_them(tmp_path):
    class PaperEncoder(HashingEncoder):
        input_name = "document"

    class DemosEncoder(HashingEncoder):
        input_name = "demos"

        def forward(self, inputs):
            return super().forward([" ".join(d["input"] for d in demos) for demos in inputs])

    (tmp_path / "a.txt").write_text("some long document that is secret")
    demos = '{"input": "3", "output": "no"}\n\n{"input": "4", "output": "yes"}\n'
    (tmp_path / "a.jsonl").write_text(demos)
    try:
        for kind, encoder, file in (
            ("document", PaperEncoder(16), "a.txt"),
            ("demos", DemosEncoder(16), "a.jsonl"),
        ):
            scrambled(LoRASpec(build(), r=2), encoder).save_pretrained(tmp_path / kind)
            args = options(
                tmp_path / kind, tmp_path / f"{kind}-out", **{kind: str(tmp_path / file)}
            )
            generate_command(args)
            card = (tmp_path / f"{kind}-out" / "README.md").read_text()
            assert f'{kind}: "{file}"' in card
            assert "secret" not in card
    finally:
        for name in ("PaperEncoder", "DemosEncoder"):
            ConditionEncoder._registry.pop(name)


def test_inputs_that_the_generator_does_not_take_are_refused(run, tmp_path):
    (tmp_path / "a.txt").write_text("a document")
    (tmp_path / "a.jsonl").write_text('{"input": "1", "output": "no"}\n')
    for kind, file in (("document", "a.txt"), ("demos", "a.jsonl")):
        args = options(run, tmp_path / "out", **{kind: str(tmp_path / file)})
        with pytest.raises(ConditionError, match=f"conditioned on text, but got {kind}"):
            generate_command(args)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"text": ""}, ConditionError, "text 0 is empty"),
        ({"text": ["a", " "]}, ConditionError, "text 1 is empty"),
        ({"text": "word " * 600}, ConditionError, "600 words; the encoder takes 512"),
        ({}, UsageError, "give one of --text, --demos and --document"),
        ({"text": "a", "document": "b"}, UsageError, "give one of --text"),
        ({"document": "no/such.txt"}, UsageError, r"no/such\.txt does not exist"),
        ({"demos": "no/such.jsonl"}, UsageError, r"no/such\.jsonl does not exist"),
    ],
)
def test_bad_input_writes_nothing(run, tmp_path, more, error, message):
    with pytest.raises(error, match=message):
        generate_command(options(run, tmp_path / "out", **more))
    assert list(tmp_path.iterdir()) == []


def test_folders_that_hold_something_else_are_left_alone(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="file is a file; name a folder"):
        generate_command(options(run, tmp_path / "file", text="a"))
    for name in ("thesis.txt", "adapter_config.json"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / name).write_text("mine")
        with pytest.raises(UsageError, match=r"holds .*; choose another folder"):
            generate_command(options(run, tmp_path / "mine", text="a"))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


def test_a_run_without_generator_is_told(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        generate_command(options(tmp_path / "no", tmp_path / "out", text="a"))
    assert not (tmp_path / "out").exists()


def test_equal_bytes_in_processes_of_other_hash_seeds(run, tmp_path):
    code = (
        "import argparse, json, sys\n"
        "from hypergen.serving import generate_command\n"
        "args = argparse.Namespace(run=sys.argv[1], out=sys.argv[2], text=['is it even', 'is 3'],"
        " demos=None, document=None, n=2, seed=5, json='-')\n"
        "print(json.dumps(generate_command(args)['sha256'], sort_keys=True))\n"
    )
    results = []
    for seed in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(run), str(tmp_path / "out" / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        results.append(json.loads(done.stdout))
    assert results[0] == results[1]
    assert len(results[0]) == 13
    assert len(set(results[0].values())) > 4  # the two sentences differ
