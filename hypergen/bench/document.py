"""`hypergen bench document`: adapters from documents, against the way of Generative Adapter.

Cost model of a module of width h in and out, for B documents of S chunks of L tokens, keys of
width k and values of width v: keys and values take 2 B S L h (k + v) operations, the sums of chunks
2 B S L k v, the sums of prefixes B S k v additions, and A of a prefix's adapter 2 r k h. Both ways
take those. Repeating the chunks' sums for every prefix behind a mask writes and reads B S² k v
numbers more; a polar factor takes about 10 v³ operations where exact, and the sketch of rank r
about 8 k v r. Factors of width v instead of r are v / r times the bytes. The bound runs the
products alone.

Two layouts are compared with keys and values of width h, sketched to rank r = h / 8:

- "values of the rank": ours with values of width r, which is the same state width, rank and number
  of emitted bytes, and needs no truncation. It is a smaller generator, not the same function;
- "same sums": ours with values of width h too, truncated exactly: the same function, of which the
  sketch is an approximation.

Reading is a small language model's whole forward pass with the states, against that pass alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.progress import progress
from hypergen.bench.document_memory import Reading, held_bytes, measure
from hypergen.bench.document_peer import Peer
from hypergen.bench.timing import Timing, interleave, row
from hypergen.generators.fast_weights.family import FastWeights, Options, prefix_sums

WIDTHS = (64, 256)
# Documents and chunks; the peer's masked product of (8, 32) at width 256 alone takes 2 GiB.
SHAPES = ((1, 8), (1, 32), (8, 8), (8, 16))
SAME = ((1, 8), (1, 32))
CHUNK = 64  # tokens
TOKENS = 8192  # of the timed reading
LONG = 100_000  # tokens of the document whose memory is measured
SHORT = 2_000


class Case:
    """One module, its documents, and both ways.

    Args:
        width: h.
        documents: B.
        chunks: S.
        same: Whether values are as wide as the peer's.
    """

    def __init__(self, width: int, documents: int, chunks: int, same: bool) -> None:
        torch.manual_seed(0)
        self.width, self.rank = width, width // 8
        # A small ε: the spectrum falls far, and the exact factor is what is compared with.
        options = Options(width, "separate", 0, "polar", 1.0, 1e-9, 0.01, False)
        values = width if same else self.rank
        self.ours = FastWeights(self.rank, values, width, width, [0], width, options)
        wide = FastWeights(self.rank, width, width, width, [0], width, options)
        with torch.no_grad():
            for weights in (self.ours, wide):
                weights.out.normal_()
        self.peer = Peer(self.ours if same else wide, self.rank)
        # A few topics, so that the spectrum falls as a text's does.
        topics = torch.randn(16, width) * torch.linspace(2, 0.2, 16)[:, None]
        mixed = torch.randn(documents, chunks * CHUNK, 16) @ topics
        tokens = mixed + 0.3 * torch.randn(documents, chunks * CHUNK, width)
        self.tokens = torch.nn.functional.rms_norm(tokens, (width,))
        self.weight = torch.ones(documents, chunks * CHUNK)

    def sums(self) -> Tensor:
        """Ours, `[1, B · S, k, v]`."""
        made = self.ours.sums(self.tokens, self.weight, CHUNK, total=False)
        return prefix_sums(made, 1.0).flatten(1, 2)

    def run(self) -> tuple[Tensor, Tensor]:
        """Ours: A `[1, B · S, r, h]` and B."""
        return self.ours.factors(self.sums())

    def reference(self) -> tuple[Tensor, Tensor]:
        """The peer's."""
        return self.peer(self.tokens, CHUNK)

    def products(self) -> Callable[[], None]:
        """The matrix products that ours cannot do without, into buffers allocated beforehand."""
        ours, flat = self.ours, self.tokens.flatten(0, 1)
        assert ours.key is not None
        key, value = ours.key.detach()[0].T, ours.value.detach()[0].T
        keys, values = flat @ key, flat @ value
        chunked = keys.unflatten(0, (-1, CHUNK)).mT, values.unflatten(0, (-1, CHUNK))
        sums = chunked[0] @ chunked[1]
        left = torch.randn(len(sums) * self.rank, self.width)
        query, a = ours.query.detach()[0], torch.empty(len(left), self.width)

        def run() -> None:
            torch.mm(flat, key, out=keys)
            torch.mm(flat, value, out=values)
            torch.bmm(*chunked, out=sums)
            torch.mm(left, query, out=a)

        return run

    @torch.no_grad()
    def repeats(self) -> dict[str, float]:
        """Relative difference of the last prefix's update in two runs of each way.

        Raises:
            AssertionError: Ours are not the same to the last bit.
        """
        first, second = self.run(), self.run()
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        theirs = [_update(*self.reference()) for _ in range(2)]
        return {"ours": 0.0, "reference": _apart(theirs[0], theirs[1])}

    @torch.no_grad()
    def errors(self) -> dict[str, float]:
        """Relative distance of the last prefix's update from that of the exact factor.

        Raises:
            AssertionError: The two ways have different sums, or ours is not exact.
        """
        mine, theirs = self.sums()[0], self.peer.sums(self.tokens, CHUNK).flatten(0, 1)
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3 * float(theirs.max()))
        u, _, v = torch.linalg.svd(mine[-1].double(), full_matrices=False)
        factor = u[:, : self.rank] @ v[: self.rank]
        exact = self.peer.out.double() @ factor.T @ self.peer.query.double()
        a, b = self.run()
        found = {
            "ours": _apart(_update(a[0], b[0]), exact),
            "reference": _apart(_update(*self.reference()), exact),
        }
        assert found["ours"] < 1e-2, found
        return found


def _update(a: Tensor, b: Tensor) -> Tensor:
    """The update of the last prefix of the last document."""
    return b[-1].double() @ a[-1].double()


def _apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).norm() / second.norm())


@torch.no_grad()
def adapters(
    width: int, documents: int, chunks: int, same: bool, runs: int = 7
) -> list[dict[str, Any]]:
    """Times the adapters after every chunk, and compares what is emitted.

    Returns:
        One row in seconds and, of a single document of values of the rank, one in MB.

    Raises:
        AssertionError: Ours differs from run to run, or (of the same sums) from the exact factor.
    """
    case = Case(width, documents, chunks, same)
    more: dict[str, Any] = {"difference of two runs": case.repeats()}
    if same:
        more["distance from the exact update"] = case.errors()
    timed = interleave(
        {"ours": case.run, "reference": case.reference, "bound": case.products()}, runs=runs
    )
    layout = "same sums" if same else "values of the rank"
    label = f"adapters after each of {chunks} chunks, batch {documents}, width {width}, {layout}"
    rows = [{**row(label, timed["ours"], timed["reference"], timed["bound"]), **more}]
    if documents == 1 and not same:
        ours, theirs = (sum(t[..., -1, :, :].nbytes for t in way()) for way in _emitting(case))
        rows.append(
            {
                "case": f"emitted for a module, width {width}",
                "metric": "kB",
                "ours": ours / 1e3,
                "reference": theirs / 1e3,
                "ratio": theirs / ours,
                "bound": None,
            }
        )
    return rows


def _emitting(case: Case) -> list[Callable[[], tuple[Tensor, Tensor]]]:
    def ours() -> tuple[Tensor, Tensor]:
        a, b = case.run()
        return a[0], b[0]

    return [ours, case.reference]


@torch.no_grad()
def reading(tokens: int = TOKENS, runs: int = 3) -> dict[str, Any]:
    """Times the reading of a document, against the frozen model's forward pass alone."""
    made = Reading()
    document = "".join(made.lines(tokens))
    ids = made.ids(tokens)

    def ours() -> object:
        return made.generator.read(document, progress=False).weights()

    def bare() -> None:
        for batch in ids:
            made.body(input_ids=batch, use_cache=False)

    timed: dict[str, Timing] = interleave({"ours": ours, "bare": bare}, runs=runs, warmup=1)
    label = f"read {tokens:,} tokens, against the frozen model's forward pass alone"
    return {
        **row(label, timed["ours"], timed["bare"], timed["bare"]),
        "tokens per second": tokens / timed["ours"].minimum,
    }


def memory(tokens: int = LONG, short: int = SHORT) -> list[dict[str, Any]]:
    """Peak memory of reading a document, streamed and at once, above that of the built model."""
    built = measure("build", 0)
    streamed, at_once = (measure(way, tokens) - built for way in ("stream", "whole"))
    brief = measure("stream", short) - built
    common = {"metric": "MiB", "bound": None, "built": built, "runs": 1}
    state = held_bytes() / (1 << 20)
    return [
        {
            "case": f"memory of reading {tokens:,} tokens, against reading them at once",
            "ours": streamed,
            "reference": at_once,
            "ratio": at_once / max(streamed, 1e-3),
            "state": state,
            **common,
        },
        {
            "case": f"memory of reading {tokens:,} tokens, against {short:,}",
            "ours": streamed,
            "reference": brief,
            "ratio": brief / max(streamed, 1e-3),
            "state": state,
            **common,
        },
    ]


def run(runs: int = 7) -> dict[str, Any]:
    """Runs every case; see `hypergen bench` for the keys."""
    parts: list[Callable[[], list[dict[str, Any]]]] = [
        partial(adapters, width, documents, chunks, same, runs)
        for same, shapes in ((False, SHAPES), (True, SAME))
        for width in WIDTHS
        for documents, chunks in shapes
    ]
    parts += [lambda: [reading()], memory]
    rows: list[dict[str, Any]] = []
    for part in progress(parts, desc="bench document", unit="part"):
        rows += part()
    emitted = {r["case"]: r for r in rows if r["case"].startswith("emitted")}
    rows = [r for r in rows if not r["case"].startswith("emitted")] + list(emitted.values())
    return {"name": "document", "rows": rows}
