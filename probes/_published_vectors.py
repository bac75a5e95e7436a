"""The published numbers on the published columns: overlap of first tokens, cosine, distance, and behaviour.

What a column writes is projected by each model's own head, as published, with 200 first tokens. Behaviour compares the
suspect's greedy answers with base's, base's being the reference; the public code hands them over the other way round,
which changes BLEU and not ROUGE-L: that number stands beside it under the name of ``published``.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray

from audit.probing import (
    AuditError,
    Bench,
    Checkpoint,
    Count,
    Listing,
    Measurement,
    Missing,
    Naming,
    OpenCase,
    Rows,
    blank,
    enrichment_scan,
    interval,
    stats,
)
from probes._benchmark import Concept
from probes._value_changes import PEERS, moved, peers_of, percentile
from probes._value_columns import ValueModel, Values

PUBLISHED = Naming(
    probe="concept_vectors", name="published_benchmark", kind="context", mode="paper",
    statistic="overlap (Jaccard) of the first 200 tokens that the published columns write in base and in the suspect",
    unit="share of tokens", scale="other",
)  # fmt: skip
QUESTION, COMPLETION = "Question: {}\n Answer:", "Please complete the following paragraph: {}"
LISTED = 20
COLUMNS = (
    "concept", "block", "unit", "jaccard", "cosine", "distance", "moved more than", "precision", "related",
    "BLEU", "BLEU published", "ROUGE-L", "BLEU completion", "BLEU unrelated", "ROUGE-L unrelated",
)  # fmt: skip
Numbers = dict[str, float | None]


class Behaviour(NamedTuple):
    """How long answers are at most; 0: none are asked for."""

    new_tokens: int


def published(
    case: OpenCase, models: Values, concepts: Sequence[Concept], behaviour: Behaviour, seed: int
) -> Measurement:
    """Every published column, in base and in the suspect. AuditError (code 2) for a column that base has not."""
    for n, concept in enumerate(concepts, 1):
        _check(models.base, concept, n)
    lines = [
        _intrinsic(case.tokenizer, models, concept) | _behaves(case, models, concept, behaviour) for concept in concepts
    ]
    overlap = np.array([line["jaccard"] for line in lines], dtype=float)
    n = Count(scored=len(concepts))
    empty = blank(PUBLISHED, "the published number has no test", n, len(concepts), seed)
    rows = tuple(
        (concept.name, concept.block, concept.unit, *(_rounded(line.get(name)) for name in COLUMNS[3:]))
        for concept, line in zip(concepts[:LISTED], lines, strict=False)
    )
    listing = Listing(
        title="published concept vectors", columns=COLUMNS, rows=rows, of=len(concepts), quoted=("concept",)
    )
    nothing = Missing(missing="numbers of columns and answers, not of items")
    return empty.model_copy(
        update={
            "value": float(overlap.mean()), "unit_of_replication": "concept", "items": nothing,
            "ci95": interval(overlap[:, None], np.ones((len(overlap), 1)), seed),
            "readings": _averages(lines), "listings": (listing,),
            "notes": (
                "BLEU (NLTK, smoothing method 3, words by white space) and ROUGE-L of the suspect's greedy answers "
                "with base's as the reference; BLEU published has the two exchanged, as the public code has them",
            ),
        }
    )  # fmt: skip


def _check(base: ValueModel, concept: Concept, n: int) -> None:
    if concept.block >= base.blocks or concept.unit >= base.vectors(min(concept.block, base.blocks - 1)).shape[0]:
        raise AuditError(
            f"benchmark: entry {n} ({concept.name}) names column {concept.unit} of block {concept.block}, and base has "
            f"{base.blocks} blocks of {base.width} columns",
            "take the list that was made for this model",
        )


def answer_tokens(tokenizer: Any, concepts: Sequence[Concept], behaviour: Behaviour) -> int:
    """So many tokens do the answers of base and suspect cost at the most: every step reads the whole prefix again."""
    steps = behaviour.new_tokens
    if not steps:
        return 0
    prompts = [prompt for concept in concepts for _, texts in _asked(concept) for prompt in texts]
    return 2 * steps * sum(len(tokenizer(prompt)["input_ids"]) + steps for prompt in prompts)


def _asked(concept: Concept) -> tuple[tuple[str, list[str]], ...]:
    """The prompts of an entry by what they ask for."""
    return (
        ("", [QUESTION.format(text) for text in concept.questions]),
        (" completion", [COMPLETION.format(text) for text in concept.beginnings]),
        (" unrelated", [QUESTION.format(text) for text in concept.unrelated]),
    )


# ---- the columns ------------------------------------------------------------------------------------------------
def _intrinsic(tokenizer: Any, models: Values, concept: Concept) -> Numbers:
    base, suspect = models.base, models.suspect
    vectors = base.vectors(concept.block).cpu()
    change = moved(suspect.vectors(concept.block).cpu(), vectors)
    unit = torch.tensor([concept.unit])
    peers = peers_of(vectors, torch.ones(len(vectors)), unit, PEERS)
    places = min(enrichment_scan.PUBLISHED_PLACES, len(base.unembedding))
    first = [
        set(enrichment_scan.first_tokens(m.unembedding, m.vectors(concept.block)[unit].float(), places)[0].tolist())
        for m in (base, suspect)
    ]
    article = _article_tokens(tokenizer, concept.article)
    in_article = first[0] & article
    return {
        "jaccard": len(first[0] & first[1]) / len(first[0] | first[1]),
        "cosine": min(float(change.cosine[concept.unit]), 1.0),
        "distance": float((suspect.vectors(concept.block).cpu()[unit] - vectors[unit]).float().norm()),
        "moved more than": float(percentile(change.distance, unit, peers)[0]),
        "precision": len(first[1] & article) / len(in_article) if in_article else None,
        "related": len(first[1] & in_article) / len(in_article) if in_article else None,
    }


def _article_tokens(tokenizer: Any, article: str) -> set[int]:
    """The tokens of an article but for stop words (scikit-learn's English ones) and those without letter or digit."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    tokens: set[int] = set(tokenizer(article, add_special_tokens=False)["input_ids"]) if article else set()
    words = {token: str(tokenizer.decode([token])).strip().lower() for token in tokens}
    return {t for t, w in words.items() if any(map(str.isalnum, w)) and w not in ENGLISH_STOP_WORDS}


# ---- behaviour --------------------------------------------------------------------------------------------------
def _behaves(case: OpenCase, models: Values, concept: Concept, behaviour: Behaviour) -> Numbers:
    """The suspect's answers held against base's."""
    if not behaviour.new_tokens:
        return {}
    numbers: Numbers = {}
    for kind, prompts in _asked(concept):
        if not prompts:
            continue
        base, suspect = (_answers(case, m, prompts, behaviour.new_tokens) for m in (models.base, models.suspect))
        numbers[f"BLEU{kind}"] = _mean(stats.bleu, base, suspect)
        numbers[f"BLEU{kind} published"] = _mean(stats.bleu, suspect, base)
        numbers[f"ROUGE-L{kind}"] = _mean(stats.rouge_l, base, suspect)
    return numbers


def _mean(score: Callable[[str, str], float], reference: Sequence[str], candidate: Sequence[str]) -> float:
    return float(np.mean([score(*pair) for pair in zip(reference, candidate, strict=True)]))


def _answers(case: OpenCase, model: ValueModel, prompts: Sequence[str], new_tokens: int) -> list[str]:
    """Greedy answers, computed once a model and prompt."""
    answers = _generated(model.bench, model.checkpoint, _rows(case.tokenizer, prompts), new_tokens)
    return [str(case.tokenizer.decode([t for t in tokens if t >= 0])) for tokens in answers.tolist()]


def _generated(bench: Bench, checkpoint: Checkpoint, rows: Rows, new_tokens: int) -> ndarray:
    def compute() -> dict[str, ndarray]:
        padded = np.full((len(rows), new_tokens), -1)
        for n, tokens in enumerate(bench.generate(checkpoint, rows, new_tokens)):
            padded[n, : len(tokens)] = tokens
        return {"tokens": padded}

    return bench.cached(("greedy_answers", checkpoint.key, rows.hash, new_tokens), compute)["tokens"]


def _rows(tokenizer: Any, prompts: Sequence[str]) -> Rows:
    """Prompts as rows without an answer, each padded on the right and taken by its own length."""
    coded: list[list[int]] = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    width = max(map(len, coded)) + 1
    ids = torch.zeros(len(coded), width, dtype=torch.long)
    mask = torch.zeros(len(coded), width, dtype=torch.bool)
    for n, tokens in enumerate(coded):
        ids[n, : len(tokens)], mask[n, : len(tokens)] = torch.tensor(tokens), True
    ends = mask.sum(1)
    names = tuple(f"prompt-{n}" for n in range(len(coded)))
    return Rows(ids, mask, torch.stack([ends, ends], 1), torch.zeros_like(mask), names, names)


# ---- the numbers together ---------------------------------------------------------------------------------------
def _averages(lines: Sequence[Numbers]) -> dict[str, float]:
    names = dict.fromkeys(name for line in lines for name in line)
    values = {name: [v for line in lines if (v := line.get(name)) is not None] for name in names}
    return {name.lower().replace(" ", "_").replace("-", "_"): float(np.mean(v)) for name, v in values.items() if v}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
