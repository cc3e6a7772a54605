"""The recipes of SANE, D2NWG and HyperDiffusion train on small zoos, and are evaluated on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import hypergen
from hypergen import cli
from hypergen.generators import KDEGenerator
from hypergen.generators.diffusion import SequenceCodec
from hypergen.zoo.build.build import build_zoo
from hypergen.zoo.build.networks import NetworkZoo
from hypergen.zoo.ensemble import Classification, Digits
from hypergen.zoo.networks import MLP, SIREN
from hypergen.zoo.reading.record import ZooRecord
from hypergen.zoo.store import Architecture, Block, Header, Row, Task, ZooWriter

CONFIGS = Path(__file__).parents[2] / "configs"
COMMON = {
    "trainer.max_steps": "4",
    "trainer.log_every_n_steps": "1",
    "trainer.val_check_interval": "2",
    "trainer.accelerator": "cpu",
    "data.batch_size": "4",
    "data.epoch": "2",
}
DIT = "{name: DiT, width: 16, depth: 1, heads: 2}"
CODEC = "model.generator.codec"
SMALL = {
    "sane": {f"{CODEC}.dim": "16", f"{CODEC}.latent": "4"},
    "d2nwg": {
        "data.encoder": "hashing",
        f"{CODEC}.dim": "16",
        f"{CODEC}.latent": "4",
        "model.generator.codec_steps": "2",
        "model.generator.denoiser": DIT,
    },
    "hyper_diffusion": {"model.generator.denoiser": DIT},
}


@pytest.fixture(scope="module")
def zoos(tmp_path_factory):
    """Digits at two moments of training, sets of digits, and images as networks."""
    folder = tmp_path_factory.mktemp("zoos")
    common = {"steps": 20, "lr": 1e-2}
    digits = Classification(Digits())
    build_zoo(
        NetworkZoo("digits", MLP(64, (4,), 10), digits, 64, save_steps=(5, 20), **common),
        folder / "sane",
    )
    sets = Classification(Digits(), "subsets", n_tasks=80)
    build_zoo(NetworkZoo("sets", MLP(64, (4,), 2), sets, 80, **common), folder / "d2nwg")
    network = SIREN(2, (4,), 1)
    tasks = {f"image-{i}": Task((f"An image of the digit {i % 10}.",)) for i in range(80)}
    architecture = Architecture(network.spec(), network.to_dict())
    header = Header("images", tasks=tasks, architectures={"siren": architecture})
    rows = [Row(f"run-{i}", 1, "siren", f"image-{i}") for i in range(80)]
    flat = torch.stack([network.spec().initial(i) for i in range(80)])
    with ZooWriter(folder / "hyper_diffusion", header) as writer:
        writer.append([Block("siren", flat, rows)])
    return folder


@pytest.fixture(scope="module")
def runs(zoos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, own in SMALL.items():
        options = {**COMMON, **own, "data.path": zoos / name}
        words = [f"--{key}={value}" for key, value in options.items()]
        run = folder / name
        words = ["fit", "-c", str(CONFIGS / f"{name}.yaml"), "--run", str(run), *words]
        assert cli.main(words) == 0
    return folder


@pytest.mark.parametrize("name", SMALL)
def test_the_recipe_trains_into_a_complete_run(name, runs):
    assert (runs / name / "checkpoints" / "last.ckpt").is_file()
    generator = hypergen.load(runs / name)
    asked = {"text": "Is the digit 1 or 7?"} if name == "d2nwg" else {}
    a, b = generator.generate(n=2, **asked)
    assert torch.isfinite(a.flat()).all()
    assert not torch.equal(a.flat(), b.flat())


def test_the_run_of_sane_holds_the_embeddings_of_the_best_training_networks(runs):
    net = hypergen.load(runs / "sane")
    assert isinstance(net, KDEGenerator)
    assert isinstance(net.codec, SequenceCodec)
    train = ZooRecord.load(runs / "sane").splits["train"]
    accuracy = torch.from_numpy(train.metric("val", "accuracy"))
    best = accuracy.argsort(descending=True, stable=True)[: len(net.embeddings)].sort().values
    assert len(best) == round(0.3 * len(train))
    with torch.no_grad():
        expected = net.codec.encode(train.flat(best))
    assert torch.allclose(net.embeddings, expected, atol=1e-5)


def test_what_embeddings_know_is_evaluated(runs, zoos, capfd):
    for name in ("sane", "d2nwg"):
        words = ["evaluate", str(runs / name), "--properties", str(zoos / name), "--json"]
        assert cli.main(words) == 0
        found = json.loads(capfd.readouterr().out)
        assert set(found["properties"]["test.accuracy"]["r2"]) == {"embedding", "statistics"}
        assert "was not trained on" in found["notes"][0]


def test_networks_for_unseen_sets_are_evaluated(runs, capfd):
    assert cli.main(["evaluate", str(runs / "d2nwg"), "--n", "1", "--json"]) == 0
    assert set(json.loads(capfd.readouterr().out)["methods"]) >= {"generated", "nearest", "mean"}


def test_images_of_networks_are_evaluated(runs, capfd, tmp_path):
    words = ["evaluate", str(runs / "hyper_diffusion"), "--images", "6"]
    assert cli.main([*words, "--report", str(tmp_path / "report"), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert set(found["values"]) >= {"generated", "training", "gaussian"}
    assert (tmp_path / "report" / "images.png").is_file()


def test_training_goes_on_from_a_checkpoint_before_any_embedding(runs, zoos, tmp_path):
    """The same bytes as without a break, embeddings included."""
    run = tmp_path / "run"
    options = {**COMMON, **SMALL["sane"], "data.path": zoos / "sane"}
    options |= {"model.schedule": "constant", "model.warmup": "0"}

    def fit(steps: str, *more: str) -> dict[str, torch.Tensor]:
        words = [f"--{k}={v}" for k, v in {**options, "trainer.max_steps": steps}.items()]
        words = ["fit", "-c", str(CONFIGS / "sane.yaml"), "--run", str(run), *words, *more]
        assert cli.main(words) == 0
        return hypergen.load(run).state_dict()

    whole, half, again = fit("4"), fit("2", "--overwrite"), fit("4", "--resume")
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    assert not torch.equal(half["embeddings"], again["embeddings"])
