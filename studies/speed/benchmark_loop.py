"""What does one sweep over all answers save over a benchmark's loop, one metric after another?

``python -m studies.speed.benchmark_loop --data DIR --out studies/speed/benchmark_loop.json``. stories260K and TOFU's
facts to forget and to keep, each with its answer, its paraphrased and its five perturbed answers. The loop is the
schedule of open-unlearning's evaluation, written down here from its documents and not its code: every metric has a
data set and a loader of its own (tokens made anew, 32 rows in the order of the file, padded to the longest), one
forward a batch with the logits of all positions, one a variant for perturbed answers. Its metrics that rest on
log-probabilities are run: probability of the three kinds of answers, truth ratio (of the two before), extraction
strength, exact memorisation, and Min-K membership of forgotten against kept facts; no generation (ROUGE) and no
gradient norm. Ours opens the case, makes its rows, reads every row once and takes the same numbers from what was read;
they must agree. The model is open on both sides; CPU-seconds of one thread, interleaved.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit import stats
from audit.bench import Bench
from audit.case import Rows, load_case, open_case, row_means
from audit.checkpoints import folder_of, resolve
from audit.probing import ANSWER_LOGPROB, LOGITS
from audit.schema import Checkpoint, Read, Record, Source, Texts
from audit.stats import tofu
from audit.storage import write_atomic
from studies.provenance import Stamp, stamp
from studies.speed.methods import plain
from studies.speed.results import Ratio
from studies.speed.timing import interleaved, ratio

MODEL: Final = Path("models") / "stories260K-hf"
FILES: Final = {"forget": "forget10_perturbed.jsonl", "retain": "retain_perturbed.jsonl"}
AT_ONCE, MIN_K, LEAST = 32, 0.4, 6.0
"""Rows a batch of the loop; the share of tokens of Min-K; how many times as fast is promised."""
AGREE: Final = 1e-4
OURS, LOOP = "one read of every row", "the benchmark's loop"
ANSWER_RANK: Final = Read(site=LOGITS, at="answer", reduce="rank")
CASE: Final = """name = "benchmark"
edited = "all"
[roles]
base = {{ path = "{model}" }}
suspect = {{ path = "{model}" }}
[data]
forget = "forget.jsonl"
retain = "retain.jsonl"
group = "author_id"
[template]
prompt = "Question: {{question}}\\nAnswer:"
answer = " {{answer}}"
bos = "always"
"""
Numbers = dict[str, float]


class LoopResults(Record):
    """CPU-seconds of either way by repeat, how many rows went forward in each, and the largest difference between their
    numbers, relatively."""

    stamp: Stamp
    command: str
    facts: int
    ours_s: tuple[float, ...]
    loop_s: tuple[float, ...]
    faster: Ratio
    gap: float

    @property
    def sentence(self) -> str:
        """What the page says of it."""
        return (
            f"The loop takes **{self.faster.median:.1f}** times as long ({self.faster.ci95.lo:.1f} to "
            f"{self.faster.ci95.hi:.1f}; promised at least {LEAST:g}): {np.median(self.loop_s):.1f} CPU-seconds "
            f"against {np.median(self.ours_s):.1f} for {self.facts} facts; the same numbers to {self.gap:.0e}; "
            f"{len(self.ours_s)} repeats."
        )


class Fact(NamedTuple):
    """A question and one text that answers it, as the template says them."""

    prompt: str
    answer: str


# ---- the loop ---------------------------------------------------------------------------------------------------
class Loop:
    """The published schedule on one model."""

    def __init__(self, model: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        from transformers import AutoTokenizer

        self.model, self.rows = plain(model), rows
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)

    def __call__(self) -> Numbers:
        """Every metric, one after another."""
        numbers = Numbers()
        for cohort in FILES:
            numbers[f"{cohort} probability"] = float(np.exp([x.mean() for x in self._scores(cohort, "answer")]).mean())
            para = np.array([-x.mean() for x in self._scores(cohort, "paraphrased_answer")])
            losses = [[-x.mean() for x in self._scores(cohort, "perturbed_answer", n)] for n in range(5)]
            numbers[f"{cohort} truth ratio"] = float(tofu.truth_ratio(para, np.array(losses).T).mean())
        right = list(self._scores("forget", "answer", chosen=_is_best))
        numbers["extraction strength"] = float(np.mean([_tail(row) for row in right]))
        right = list(self._scores("forget", "answer", chosen=_is_best))
        numbers["exact memorisation"] = float(np.mean([row.mean() for row in right]))
        lowest = {cohort: [_lowest(x) for x in self._scores(cohort, "answer")] for cohort in FILES}
        numbers["Min-K AUROC"] = stats.auroc(np.array(lowest["forget"]), np.array(lowest["retain"]))
        return numbers

    def _scores(
        self, cohort: str, field: str, variant: int = 0, chosen: "Callable[[Tensor, Tensor], Tensor] | None" = None
    ) -> Iterator[Float[ndarray, " token"]]:
        """Per row of a data set the log-probabilities of its answer's tokens, or what ``chosen`` makes of logits."""
        texts = [row[field] if isinstance(row[field], str) else row[field][variant] for row in self.rows[cohort]]
        encoded = [self._encoded(row["question"], text) for row, text in zip(self.rows[cohort], texts, strict=True)]
        for first in range(0, len(encoded), AT_ONCE):
            batch = encoded[first : first + AT_ONCE]
            width = max(len(ids) for ids, _ in batch)
            ids, mask = torch.zeros(len(batch), width, dtype=torch.long), torch.zeros(len(batch), width)
            for n, (tokens, _) in enumerate(batch):
                ids[n, : len(tokens)], mask[n, : len(tokens)] = torch.tensor(tokens), 1
            with torch.no_grad():
                logits = self.model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1].float()
                values = (chosen or _logprob)(logits, ids[:, 1:])
            for n, (tokens, start) in enumerate(batch):
                yield values[n, start - 1 : len(tokens) - 1].double().numpy()

    def _encoded(self, question: str, answer: str) -> tuple[list[int], int]:
        prompt = self.tokenizer(f"Question: {question}\nAnswer:", add_special_tokens=False)["input_ids"]
        tokens = self.tokenizer(f"Question: {question}\nAnswer: {answer}", add_special_tokens=False)["input_ids"]
        bos = [self.tokenizer.bos_token_id]
        return bos + tokens, 1 + len(prompt)


def _logprob(logits: Tensor, ids: Tensor) -> Tensor:
    return -torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")


def _is_best(logits: Tensor, ids: Tensor) -> Tensor:
    return logits.argmax(-1) == ids


def _tail(right: Float[ndarray, " token"]) -> float:
    """The share of an answer that is right to its end."""
    wrong = np.flatnonzero(right == 0)
    return (len(right) - 1 - wrong[-1]) / len(right) if len(wrong) else 1.0


def _lowest(logprob: Float[ndarray, " token"]) -> float:
    """The mean of the lowest share of a row's log-probabilities."""
    return float(stats.min_k(logprob, np.zeros(len(logprob), dtype=int), 1, MIN_K)[0])


# ---- ours -------------------------------------------------------------------------------------------------------
class Ours:
    """The case's own rows, each read once."""

    def __init__(self, case: Path, model: Checkpoint) -> None:
        self.case, self.model, self.bench = case, model, Bench()
        self.bench.open(model)

    def __call__(self) -> Numbers:
        """All numbers from one read of every row."""
        numbers, lowest = Numbers(), dict[str, ndarray]()
        with tempfile.TemporaryDirectory() as out:
            case = open_case(load_case(self.case), self.case.parent, Path(out))
            for cohort in FILES:
                texts = Texts.model_validate({"cohort": cohort})
                perturbed = case.numbered(texts.model_copy(update={"answer": "perturbed"}))
                wanted = [texts, texts.model_copy(update={"answer": "paraphrased"}), *perturbed]
                rows = [case.rows(each) for each in wanted]
                reads = [self._read(each, index == 0 and cohort == "forget") for index, each in enumerate(rows)]
                pairs = zip(reads, rows, strict=True)
                means = [row_means(read[ANSWER_LOGPROB], each, "answer") for read, each in pairs]
                numbers[f"{cohort} probability"] = float(np.exp(means[0]).mean())
                losses = -np.stack(means[2:], 1)
                numbers[f"{cohort} truth ratio"] = float(tofu.truth_ratio(-means[1], losses).mean())
                row = rows[0].targets("answer")[0].numpy()
                values = reads[0][ANSWER_LOGPROB].double().numpy()
                lowest[cohort] = stats.min_k(values, row, len(rows[0]), MIN_K)
                if cohort == "forget":
                    right = reads[0][ANSWER_RANK].numpy() == 0
                    numbers["extraction strength"] = float(tofu.extraction_strength(right, row, len(rows[0])).mean())
                    numbers["exact memorisation"] = float(tofu.exact_memorisation(right, row, len(rows[0])).mean())
        numbers["Min-K AUROC"] = stats.auroc(lowest["forget"], lowest["retain"])
        return numbers

    def _read(self, rows: Rows, ranked: bool) -> Mapping[Read, Tensor]:
        reads = (ANSWER_LOGPROB, ANSWER_RANK) if ranked else (ANSWER_LOGPROB,)
        return self.bench.run(self.model, rows, reads).reads


# ---- measuring --------------------------------------------------------------------------------------------------
def material(data: Path, work: Path, facts: int) -> dict[str, list[dict[str, Any]]]:
    """The first facts of each file, written as the case's data too."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for cohort, name in FILES.items():
        lines = (data / "tofu" / name).read_text(encoding="utf-8").splitlines()[:facts]
        rows[cohort] = [json.loads(line) for line in lines]
        write_atomic(work / f"{cohort}.jsonl", ("\n".join(lines) + "\n").encode())
    write_atomic(work / "case.toml", CASE.format(model=(data / MODEL).resolve()).encode())
    return rows


def gap_of(ours: Numbers, loop: Numbers) -> float:
    """The largest relative difference. AssertionError where it is more than rounding."""
    gap = max(abs(ours[name] - value) / max(abs(value), 1e-12) for name, value in loop.items())
    assert ours.keys() == loop.keys() and gap < AGREE, f"the two ways differ: {ours} and {loop}"
    return gap


def measured(data: Path, facts: int, repeats: int) -> tuple[list[dict[str, float]], float]:
    """CPU-seconds of both ways by repeat, and how far their numbers are apart."""
    with tempfile.TemporaryDirectory(prefix="residua-loop-") as place:
        work = Path(place)
        rows = material(data, work, facts)
        model = resolve(Source(path=str((data / MODEL).resolve())), work)
        ours, loop = Ours(work / "case.toml", model), Loop(folder_of(model), rows)
        gap = gap_of(ours(), loop())
        calls: dict[str, Callable[[], object]] = {OURS: ours, LOOP: loop}
        return list(interleaved(calls, repeats, 1, 0)), gap


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds models/ and tofu/")
    parser.add_argument("--facts", type=int, default=200, help="of each file")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun = stamp(0)
    seconds, gap = measured(args.data, args.facts, args.repeats)
    taken = {way: np.array([each[way] for each in seconds]) for way in (OURS, LOOP)}
    results = LoopResults(
        stamp=begun, command=f"python -m studies.speed.benchmark_loop --data DIR --facts {args.facts}",
        facts=2 * args.facts, ours_s=tuple(taken[OURS].round(3).tolist()), loop_s=tuple(taken[LOOP].round(3).tolist()),
        faster=ratio(taken[LOOP], taken[OURS], OURS, 0), gap=gap,
    )  # fmt: skip
    if args.out:
        write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())
    sys.stdout.write(f"{results.sentence}\n")


if __name__ == "__main__":
    main()
