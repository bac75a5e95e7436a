"""MUSE: the models that were to forget news or books, and the benchmark's files.

Sources: github.com/swj0419/muse_bench (Shi et al. 2024, arXiv 2407.06460) for the data and the names of its models,
huggingface.co/muse-bench; the names of models unlearned by open-unlearning's scripts.
"""

import re
from pathlib import Path
from typing import ClassVar, Final

from audit.case.releases.clues import Benchmark, Clues, Named, Prompting, Wanted
from audit.case.releases.nearby import DataSet, find_data
from audit.case.releases.pools._pool import Pool
from audit.case.releases.release import Release
from audit.schema import Template

_CORPUS = re.compile(r"(?<![a-z])(news|books)(?![a-z])")
_ANCESTORS: Final = {"news": "meta-llama/Llama-2-7b-hf"}
ASKED: Final = Prompting(
    Template(prompt="Question: {question}\nAnswer:"), "MUSE's questions, as its own evaluation asks them"
)


def muse(corpus: str) -> Benchmark:
    """MUSE with this corpus (``news``, ``books``)."""
    folder = corpus.capitalize()
    return Benchmark(
        name=f"MUSE, {folder}",
        data=DataSet(
            f"muse-bench/MUSE-{folder}", (f"MUSE-{folder}", corpus, {"news": "bbc", "books": "hp"}[corpus]),
            ("knowmem/*", "raw/*", "privleak/*"),
        ),
        files=(
            Wanted("forget", ("knowmem/forget_qa", "forget_qa"), "questions about the texts to be forgotten"),
            Wanted("retain", ("knowmem/retain_qa", "retain_qa"), "questions about the texts that were kept"),
            Wanted("general", ("raw/retain2", "privleak/retain", "retain2"), "texts that were kept, as they are"),
        ),
        group_rows=1, group_why="MUSE does not say which text a question is about: each is a group of its own",
        absent={"holdout": "MUSE asks no questions about texts that no model was taught"},
    )  # fmt: skip


def corpus_of(release: Release) -> str:
    """Which corpus a release of MUSE is about; empty if it names MUSE or its corpus nowhere, or both corpora."""
    texts = [text.casefold() for text in (*release.names, *release.card.datasets)]
    corpora = {corpus for text in texts if "muse" in text for corpus in _CORPUS.findall(text)}
    return corpora.pop() if len(corpora) == 1 else ""


class Muse(Pool):
    """Anything that names MUSE and one of its corpora."""

    looks_for: ClassVar[str] = "MUSE and its corpus (`muse` and news or books in a name, or the card's data sets)"
    order: ClassVar[int] = 35

    def data(self, folder: Path, file: str) -> Benchmark | None:
        """MUSE by its files; the corpus by the name of the folder, or of one above it."""
        if not all(find_data((f"knowmem/{part}_qa", f"{part}_qa"), (folder,)) for part in ("forget", "retain")):
            return None
        near = " ".join(part.casefold() for part in folder.resolve().parts[-3:])
        corpora = list(dict.fromkeys(_CORPUS.findall(near)))
        return muse(corpora[0])._replace(asked=ASKED) if corpora else muse("news")._replace(name="MUSE", asked=ASKED)

    def clues(self, release: Release) -> Clues:
        """Base is the target model, the null the retrained one."""
        corpus = corpus_of(release)
        if not corpus:
            return Clues()
        reason = "MUSE's names of its models"
        before = _ANCESTORS.get(corpus)
        return Clues(
            f"MUSE, {corpus}, by its name or card", (Named(f"muse-bench/MUSE-{corpus}_target", reason),),
            null=(Named(f"muse-bench/MUSE-{corpus}_retrain", reason),), floors=(f"MUSE-{corpus}_retrain_seed*",),
            ancestor=() if before is None else (Named(before, "MUSE's paper"),), prompting=ASKED,
            benchmark=muse(corpus),
        )  # fmt: skip
