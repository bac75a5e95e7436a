"""WMDP: models whose knowledge of hazards was to be removed, and the benchmark's multiple choice.

Sources: Li et al. 2024 (arXiv 2403.03218), huggingface.co/cais for its models and data.
"""

import re
from typing import ClassVar, Final

from audit.case.releases.clues import Benchmark, Clues, Named, Prompting, Wanted
from audit.case.releases.nearby import DataSet
from audit.case.releases.pools._pool import Pool
from audit.case.releases.release import Release
from audit.schema import Template

BASES: Final = {
    "zephyr_rmu": "HuggingFaceH4/zephyr-7b-beta",
    "yi-34b-chat_rmu": "01-ai/Yi-34B-Chat",
    "mixtral-8x7b-instruct_rmu": "mistralai/Mixtral-8x7B-Instruct-v0.1",
}
"""The models that WMDP's authors published, and what they were before."""
_SUBJECT = re.compile(r"(?<![a-z])(bio|cyber|chem)", re.IGNORECASE)
ASKED: Final = Prompting(
    Template(prompt="{question}\nAnswer:"), "as the evaluation harness asks WMDP, without a chat template"
)


def wmdp(subjects: tuple[str, ...]) -> Benchmark:
    """WMDP's questions; the first of these subjects whose file is there is the one to be forgotten."""
    return Benchmark(
        name="WMDP",
        data=DataSet("cais/wmdp", ("wmdp", "WMDP"), tuple(f"wmdp-{subject}/*" for subject in subjects)),
        files=(
            Wanted(
                "forget",
                tuple(
                    name
                    for subject in subjects
                    for name in (f"wmdp-{subject}/test", f"wmdp-{subject}", f"{subject}_questions", f"wmdp_{subject}")
                ),
                "questions whose knowledge was to be removed",
            ),
            Wanted(
                "retain", ("mmlu/test", "mmlu_test", "mmlu", "all/test", "mmlu/all/test"),
                "questions of MMLU, whose knowledge was to be kept",
            ),
            Wanted("general", ("wikitext/test", "wikitext", "wikitext-2-raw-v1/test"), "texts of any kind"),
        ),
        group_rows=1, group_why="WMDP and MMLU name no source of a question: each is a group of its own",
        groups=("group",), taught=False,
        absent={"holdout": "what base knows of WMDP it knows from pretraining: no questions are known to be new to it"},
    )  # fmt: skip


class Wmdp(Pool):
    """Anything whose card names WMDP's data, or whose name says it."""

    looks_for: ClassVar[str] = "WMDP (`wmdp` in a name or the card's data sets, or a model of its authors)"
    order: ClassVar[int] = 45

    def clues(self, release: Release) -> Clues:
        """Base by the names of its authors' models; nobody retrained is known: pretraining is not repeated."""
        texts = [text.casefold() for text in (*release.names, *release.card.datasets)]
        known = [Named(BASES[name], "WMDP's authors' names of their models") for name in texts if name in BASES]
        if not known and not any("wmdp" in text for text in texts):
            return Clues()
        candidates = dict.fromkeys(subject.casefold() for text in texts for subject in _SUBJECT.findall(text))
        subjects = tuple(candidates) or ("bio", "cyber", "chem")
        return Clues("WMDP, by its name or card", tuple(known), prompting=ASKED, benchmark=wmdp(subjects))
