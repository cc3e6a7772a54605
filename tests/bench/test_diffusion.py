"""The benchmark of sampled weights: its keys, and that the ways do the same work."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hypergen import bench
from hypergen.bench import diffusion, diffusion_networks, diffusion_peer

KEYS = {"case", "metric", "ours", "reference", "ratio", "bound"}


@pytest.mark.parametrize("name", list(diffusion.models(8)))
def test_every_model_has_its_rows(name, monkeypatch):
    monkeypatch.setattr(diffusion, "BATCH", 3)
    monkeypatch.setattr(diffusion, "FEW", 2)
    rows = diffusion.case(name, diffusion.models(8)[name], runs=1, steps=4)
    codecs = [row for row in rows if "autoencoder" in row["case"]]
    assert len(codecs) == ("latent" in name)
    rows = rows[len(codecs) :]
    assert len(rows) == 6
    for row in [*codecs, *rows]:
        assert set(row) >= KEYS
        assert row["ratio"] == row["reference"] / row["ours"]
    # A thousand evaluations are 250 times four.
    assert rows[2]["ours"] == pytest.approx(250 * rows[1]["ours"])
    assert rows[5]["reference"] == pytest.approx(250 * rows[1]["reference"])
    assert name in bench.table({"rows": rows})


def test_parameters_are_equal_within_a_tenth():
    for make in diffusion.models().values():
        found = make().parameters
        assert found["ours"] == pytest.approx(found["reference"], rel=0.1)


def test_the_bound_runs_the_products_of_the_model():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    seen = []
    call = diffusion.products(model, lambda: seen.append(model(torch.randn(7, 3))), backward=True)
    assert len(seen) == 1
    with FlopCounterMode(display=False) as counter:
        call()
    assert counter.get_total_flops() == 3 * 2 * 7 * (3 * 5 + 5 * 2)


@pytest.mark.parametrize("data", [False, True])
def test_the_peer_samples_what_it_was_told(data):
    """A model that knows the data is led to them."""
    truth = torch.randn(1, 4, 3)
    process = diffusion_peer.Ancestral(data)

    def model(x, time, given):
        signal = process.signal[(1000 * time).round().long()].view(-1, 1, 1)
        return truth if data else (x - signal.sqrt() * truth) / (1 - signal).sqrt()

    torch.manual_seed(0)
    out = process.sample(model, (4, 3), None, 1000)
    torch.testing.assert_close(out, truth, atol=1e-2, rtol=0)


def test_the_peers_learn():
    torch.manual_seed(0)
    flat = torch.randn(4, 256)
    model = diffusion_peer.RPG(4, 64, 16, [4, 4])
    process = diffusion_peer.Ancestral(False)
    process.loss(model, model.latents(flat), torch.ones(4, 10)).backward()
    assert all(p.grad is not None for p in model.parameters())
    net = diffusion_peer.ConvAutoencoder(256, 8, [2, 2, 2, 2, 2])
    assert net.decode(net.encode(flat)).shape == flat.shape
    given = (model.latents(flat), torch.rand(4, 2))
    out = diffusion_peer.GPT(4, 64, 16, 1, 2)(model.latents(flat), torch.rand(4), given)
    assert F.mse_loss(out, given[0]) > 0


def test_scoring_overlaps_and_reading_agree():
    for row in (
        diffusion_networks.scoring(3, 10, 1),
        diffusion_networks.overlaps(4, 30, 1),
        diffusion_networks.reading(50, 3, 1),
    ):
        assert set(row) >= KEYS
        assert row["bound"] > 0
