"""How fast are edge scores, against bare passes, the published schedule and transformer_lens?

``python -m studies.speed.circuits --lens PYTHON`` times them on random GPT-2s (one thread, CPU-seconds, interleaved)
and writes circuits.json here. PYTHON has transformer_lens 4.3 (see lens_edges.py); without it that row stays out. The
published configuration of CUD runs (1 + 2 L) x 5 forwards and backwards a sample, one by one: here they are bare
passes that score nothing, so that its own code can only be slower.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from audit.bench import Attribution, Bench, EdgeScores
from audit.case import Rows
from audit.checkpoints import folder_of, resolve
from audit.circuits import answer_loss
from audit.schema import Checkpoint, Record, Source
from audit.storage import write_atomic
from studies.provenance import Stamp, stamp
from studies.speed.methods import plain
from studies.speed.results import Ratio
from studies.speed.timing import interleaved, ratio

HERE = Path(__file__).parent
STEPS, AT_ONCE = 5, 65_536
OURS, BARE, ACTIVATIONS = "EAP-IG-inputs, 5 steps", "the same passes, bare", "EAP-IG-activations, 5 steps"
PUBLISHED, EAP, LENS = "published schedule, bare passes one by one", "EAP", "transformer_lens 4.3, EAP"
log = logging.getLogger(__name__)


class Shape(NamedTuple):
    """A random GPT-2 and the rows it is given; the answer is the second half."""

    blocks: int
    d_model: int
    heads: int
    rows: int
    positions: int


SHAPES = {"small": Shape(4, 128, 4, 8, 32), "deep": Shape(16, 64, 4, 4, 32)}
"""``deep`` has the 16 blocks at which the published configuration comes to 165 passes a sample."""
LENS_SHAPE = "small"


class Timed(NamedTuple):
    """What is timed at one shape."""

    ckpt: Checkpoint
    rows: Rows
    other: Rows


class Row(Record):
    """CPU-seconds a sample of one way to score, its ratios, and the passes that it takes a sample."""

    shape: str
    method: str
    cpu_s_per_sample: float
    ratios: tuple[Ratio, ...]
    forwards: int
    backwards: int


class Memory(Record):
    """By how much a process's peak memory grew in scoring, and a sample's share of what is kept for all edges."""

    shape: str
    peak_growth_mib_per_sample: float
    scores_mib_per_sample: float
    edges: int


class Results(Record):
    """Everything. ``agreement``: largest difference from transformer_lens's scores over the largest |score|."""

    stamp: Stamp
    rows: tuple[Row, ...]
    memory: tuple[Memory, ...]
    agreement: dict[str, float]
    lens_versions: dict[str, str]


def random_model(name: str, folder: Path) -> Timed:
    """The random model of a shape, and its rows."""
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    shape, vocab = SHAPES[name], 500
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=shape.blocks, n_embd=shape.d_model, n_head=shape.heads, vocab_size=vocab, n_positions=shape.positions,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocab)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w0").save_pretrained(folder / name)
    GPT2LMHeadModel(config).save_pretrained(folder / name)
    size = (shape.rows, shape.positions)
    names = tuple(str(i) for i in range(shape.rows))
    spans = torch.tensor([[shape.positions // 2, shape.positions]]).repeat(shape.rows, 1)
    rows = Rows(
        torch.randint(vocab, size), torch.ones(size, dtype=torch.bool), spans, torch.ones(size) > 0, names, names
    )
    other = replace(rows, ids=torch.cat([rows.ids[:, :1], torch.randint(vocab, size)[:, 1:]], 1))
    return Timed(resolve(Source(path=str(folder / name)), folder), rows, other)


def scorer(timed: Timed, attribution: Attribution) -> Callable[[], EdgeScores]:
    """Our scores of all rows at once."""
    bench = Bench(token_budget=AT_ONCE)
    bench.open(timed.ckpt)
    return lambda: bench.edge_scores(timed.ckpt, timed.rows, timed.other, answer_loss, attribution)


def bare(timed: Timed, forwards: int, points: int, one_by_one: bool = False) -> Callable[[], None]:
    """The same passes of the plain model on the same rows, with the loss of the answers and nothing else."""
    model = plain(folder_of(timed.ckpt))
    start = int(timed.rows.answer_spans[0, 0])

    def loss(ids: torch.Tensor) -> torch.Tensor:
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        final = model.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        logprob = model.lm_head(final[:, start - 1 : -1]).log_softmax(-1)
        value = -logprob.gather(-1, ids[:, start:, None]).mean((1, 2)).sum()
        return torch.autograd.grad(value, embedded)[0]

    def call() -> None:
        ids = timed.rows.ids
        with torch.no_grad():
            for _ in range(forwards):
                model.lm_head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, start - 1 : -1])
        if not one_by_one:
            loss(ids.repeat(points, 1))
            return
        for row in ids:
            for _ in range(points):
                loss(row[None])

    model.requires_grad_(False)
    return call


def timed_shape(name: str, timed: Timed, repeats: int) -> list[Row]:
    """All of ours and the bare passes, interleaved."""
    published = (1 + 2 * SHAPES[name].blocks) * STEPS
    calls: dict[str, Callable[[], object]] = {
        OURS: scorer(timed, Attribution(steps=STEPS)), BARE: bare(timed, 2, STEPS),
        EAP: scorer(timed, Attribution("eap")),
        ACTIVATIONS: scorer(timed, Attribution("ig_activations", STEPS)),
        PUBLISHED: bare(timed, 0, published, one_by_one=True),
    }  # fmt: skip
    passes = {OURS: (2, STEPS), BARE: (2, STEPS), EAP: (2, 1), ACTIVATIONS: (2, published), PUBLISHED: (0, published)}
    seconds = list(interleaved(calls, repeats, 1, 0))
    taken = {method: np.array([s[method] for s in seconds]) for method in calls}
    against = {OURS: (BARE, PUBLISHED), ACTIVATIONS: (PUBLISHED,), EAP: (OURS,), BARE: (), PUBLISHED: (OURS,)}
    return [
        Row(
            shape=name, method=method, cpu_s_per_sample=float(np.median(times)) / len(timed.rows),
            ratios=tuple(ratio(times, taken[other], other, 0) for other in against[method]),
            forwards=passes[method][0] + passes[method][1], backwards=passes[method][1],
        )
        for method, times in taken.items()
    ]  # fmt: skip


class Lens(NamedTuple):
    """What the other environment found."""

    rows: list[Row]
    agreement: dict[str, float]
    versions: dict[str, str]


def lens(python: str, folder: Path, everything: dict[str, Timed], ours: list[Row]) -> Lens:
    """transformer_lens's scores of the same rows: as ours to rounding, and their CPU-seconds."""
    pairs = {
        name: [
            {"clean": clean.tolist(), "other": other.tolist(), "start": int(timed.rows.answer_spans[0, 0])}
            for clean, other in zip(timed.rows.ids, timed.other.ids, strict=True)
        ]
        for name, timed in everything.items()
    }
    (folder / "pairs.json").write_text(json.dumps(pairs))
    subprocess.run([python, str(HERE / "lens_edges.py"), str(folder), str(folder / "lens.json"), "5"], check=True)
    output = json.loads((folder / "lens.json").read_text())
    rows: list[Row] = []
    agreement: dict[str, float] = {}
    for name, timed in everything.items():
        theirs, mine = output["models"][name], scorer(timed, Attribution("ig_inputs", 1, "left"))()
        edges = mine.graph.exists.nonzero().tolist()
        edge_names = [mine.graph.edge_name(w, r) for w, r in edges]
        expected = np.array([[row[edge] for edge in edge_names] for row in theirs["rows"]])
        scores = mine.scores[:, mine.graph.exists].numpy()
        agreement[name] = float(np.abs(scores - expected).max() / np.abs(expected).max())
        per_sample = float(np.median(theirs["cpu_s"])) / len(timed.rows)
        own = next(row for row in ours if (row.shape, row.method) == (name, EAP))
        seconds = np.array(theirs["cpu_s"]) / len(timed.rows)
        rows.append(
            Row(
                shape=name, method=LENS, cpu_s_per_sample=per_sample,
                ratios=(ratio(seconds, np.full(len(seconds), own.cpu_s_per_sample), EAP, 0),),
                forwards=theirs["passes"]["forward"], backwards=theirs["passes"]["backward"],
            )
        )  # fmt: skip
    return Lens(rows, agreement, output["versions"])


def memory(name: str, folder: Path) -> Memory:
    """In a process of its own: the growth of the peak from a warm bare pass to scoring."""
    done = subprocess.run(
        [sys.executable, "-m", "studies.speed.circuits", "--grow", name, str(folder)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return Memory.model_validate_json(done.stdout.splitlines()[-1])


def grow(name: str, folder: Path) -> Memory:
    """The child's part: peaks before and after."""
    timed = random_model(name, folder)
    bare(timed, 2, STEPS)()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    edge_scores = scorer(timed, Attribution(steps=STEPS))()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n = len(timed.rows)
    return Memory(
        shape=name, peak_growth_mib_per_sample=(after - before) / 1024 / n,
        scores_mib_per_sample=edge_scores.scores.nbytes / 2**20 / n, edges=int(edge_scores.graph.exists.sum()),
    )  # fmt: skip


def main() -> None:
    """Time, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lens", metavar="PYTHON", help="an interpreter with transformer_lens 4.3")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=HERE / "circuits.json")
    parser.add_argument("--grow", nargs=2, metavar=("SHAPE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    if given.grow:
        sys.stdout.write(grow(given.grow[0], Path(given.grow[1])).model_dump_json() + "\n")
        return
    with tempfile.TemporaryDirectory(prefix="residua-circuits-") as place:
        folder = Path(place)
        everything = {name: random_model(name, folder) for name in given.shapes}
        rows = [row for name, timed in everything.items() for row in timed_shape(name, timed, given.repeats)]
        compared = {name: timed for name, timed in everything.items() if name == LENS_SHAPE}
        theirs = lens(given.lens, folder, compared, rows) if given.lens else Lens([], {}, {})
        peaks = tuple(memory(name, folder / "own") for name in given.shapes)
    results = Results(
        stamp=stamp(0), rows=(*rows, *theirs.rows), memory=peaks, agreement=theirs.agreement,
        lens_versions=theirs.versions,
    )  # fmt: skip
    write_atomic(given.out, (results.model_dump_json(indent=1) + "\n").encode())
    for row in results.rows:
        ratios = ", ".join(f"{r.median:.2f} [{r.ci95.lo:.2f}, {r.ci95.hi:.2f}] x {r.against}" for r in row.ratios)
        log.info("%s: %s %.4f s a sample; %s", row.shape, row.method, row.cpu_s_per_sample, ratios)


if __name__ == "__main__":
    main()
