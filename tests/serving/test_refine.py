"""`hypergen generate --refine`: adapters tuned on demonstrations in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_language
import torch
from generating import scrambled

from hypergen._utils.language_models import load_language_model
from hypergen.cli import main
from hypergen.serving import load_adapter
from hypergen.specs import LoRASpec
from hypergen.targets import make_target
from hypergen.zoo import TextDemos

DEMOS = [
    {"input": "cat", "output": "animal"},
    {"input": "cup", "output": "thing"},
    {"input": "big dog", "output": "animal"},
]


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder whose base lies in a folder, and a file of demonstrations."""
    made = tiny_language.causal()
    made.model.save_pretrained(tmp_path / "base")
    made.tokenizer.save_pretrained(tmp_path / "base")
    loaded = load_language_model(tmp_path / "base")
    spec = LoRASpec(loaded.model, ["q_proj", "v_proj"], r=2, task_type="CAUSAL_LM")
    scrambled(spec).save_pretrained(tmp_path / "run/generator")
    suite = {
        "class": "CausalSuite",
        "init_args": {"model": "x", "prompt": {"description": True}, "max_length": 64},
    }
    (tmp_path / "run/suite.json").write_text(json.dumps(suite))
    lines = "\n".join(json.dumps(demo) for demo in DEMOS)
    (tmp_path / "demos.jsonl").write_text(lines)
    return tmp_path / "run"


def generate(run: Path, out: str, *words: str, code: int = 0) -> dict:
    result = run.parent / "result.json"
    text = ["--text", "say animal", "--text", "the first"]
    words = ("generate", str(run), *text, *words, "--out", str(run.parent / out))
    assert main([*words, "--json", str(result)]) == code
    return json.loads(result.read_text()) if code == 0 else {}


@pytest.mark.parametrize("how", ["refined", "searched"])
def test_the_adapters_are_tuned_and_say_so(run, how, capsys):
    words = ["--refine", str(run.parent / "demos.jsonl"), "--steps", "4", "--lr", "0.02"]
    words += ["--search"] if how == "searched" else []
    plain = generate(run, "plain")
    result = generate(run, "out", *words)
    assert "searched" not in plain
    assert "refined" not in plain
    assert f"{how} in 4 steps: loss" in capsys.readouterr().out
    model = load_language_model(run.parent / "base")
    for i, text in enumerate(("say animal", "the first")):
        how_it_went = result[how][i]
        assert how_it_went["loss_after"][0] < how_it_went["loss_before"][0]
        # Measured again on the folders themselves, as the run's prompt asks.
        demos = TextDemos(model, DEMOS, text, prompt={"description": True})
        spec = LoRASpec(demos.network, ["q_proj", "v_proj"], r=2, task_type="CAUSAL_LM")
        target = make_target(demos.network, spec)
        for folder, key in (("plain", "loss_before"), ("out", "loss_after")):
            weights = load_adapter(run.parent / folder / f"{i:04d}", spec)
            rows = torch.arange(3)[None]
            with torch.no_grad():
                total, count = demos.losses(target, weights, torch.tensor([0]), rows)
            loss = float(total.sum() / count.sum())
            assert how_it_went[key][0] == pytest.approx(loss, abs=1e-4)
        card = (run.parent / "out" / f"{i:04d}" / "README.md").read_text()
        assert "tuned on demonstrations of the task in 4 steps" in card
        assert f"{how_it_went['loss_after'][0]:.3f}" in card
        assert "without training on the task" not in card


def test_no_steps_write_what_was_generated(run):
    generate(run, "plain")
    generate(run, "out", "--refine", str(run.parent / "demos.jsonl"), "--steps", "0")
    for i in range(2):
        file = f"{i:04d}/adapter_model.safetensors"
        from safetensors.torch import load_file

        one, other = (load_file(run.parent / name / file) for name in ("plain", "out"))
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_the_best_step_on_held_out_demonstrations(run):
    words = ["--refine", str(run.parent / "demos.jsonl"), "--steps", "3", "--heldout", "1"]
    assert len(generate(run, "out", *words)["refined"]) == 2


def test_what_cannot_be_refined_is_told(run, capsys):
    words = ["--refine", str(run.parent / "demos.jsonl")]
    generate(run, "out", *words, "--heldout", "3", code=2)
    assert "a task has 3 demonstrations" in capsys.readouterr().err
    generate(run, "out", "--refine", str(run.parent / "none.jsonl"), code=2)
    assert "none.jsonl does not exist" in capsys.readouterr().err
    (run / "suite.json").write_text('{"class": "DigitsSuite"}')
    generate(run, "out", *words, code=2)
    assert "needs a language model that writes text" in capsys.readouterr().err
    assert not (run.parent / "out").exists()
