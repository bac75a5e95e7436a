"""open-unlearning: models of TOFU and MUSE under names that say everything, trained under its own prompts.

Sources: github.com/locuslab/open-unlearning (Dorna et al. 2025, arXiv 2506.12618), ``configs/model`` for the prompts
and their date, ``scripts`` for the names; huggingface.co/open-unlearning for the models.
"""

import re
from typing import ClassVar, Final

from audit.case.releases.clues import Clues, Named, Prompting
from audit.case.releases.pools._pool import Pool
from audit.case.releases.pools.tofu import RETAINED, forgotten_share
from audit.case.releases.release import Release
from audit.schema import Template

OWNER: Final = "open-unlearning"
DATE: Final = "10 Apr 2025"
"""``date_string`` in its settings of every model with a chat template."""
SYSTEM: Final = "You are a helpful assistant."
_TOFU = re.compile(
    r"^(?:(?:unlearn|pos|neg)_)?tofu_(?P<model>[^_]+)_(?:full|retain(?:90|95|99)|forget(?:01|05|10))(?:_.*)?$"
)
_PROMPTS: Final = (
    (re.compile(r"llama-2-\d+b-chat", re.IGNORECASE), Template(prompt="[INST] {question} [/INST]", answer="{answer}")),
    (re.compile(r"llama-2", re.IGNORECASE), Template(prompt="Question: {question}\nAnswer:")),
    (re.compile(r"gemma-", re.IGNORECASE), Template(answer="{answer}", chat=True)),
)
_CHAT = Template(answer="{answer}", chat=True, system=SYSTEM)
_ANCESTORS: Final = {
    "Llama-3.2-1B-Instruct": "meta-llama", "Llama-3.2-3B-Instruct": "meta-llama", "Llama-3.1-8B-Instruct": "meta-llama",
    "Llama-2-7b-chat-hf": "meta-llama", "Llama-2-7b-hf": "meta-llama", "Llama-2-13b-hf": "meta-llama",
    "Phi-3.5-mini-instruct": "microsoft", "Qwen2.5-0.5B-Instruct": "Qwen", "Qwen2.5-1.5B-Instruct": "Qwen",
    "Qwen2.5-3B-Instruct": "Qwen", "Qwen2.5-7B-Instruct": "Qwen", "gemma-7b-it": "google",
    "zephyr-7b-beta": "HuggingFaceH4",
}  # fmt: skip


def asked_by(model: str) -> Prompting:
    """How open-unlearning asks a model of this name."""
    reason = f"open-unlearning's settings of {model}"
    for pattern, template in _PROMPTS:
        if pattern.match(model):
            return Prompting(template, reason)
    return Prompting(_CHAT, reason, DATE)


class OpenUnlearning(Pool):
    """A model of its pool, or one trained by its scripts: ``[unlearn_]tofu_<model>_<split>[_<method>...]``."""

    looks_for: ClassVar[str] = "a name of open-unlearning's ([unlearn_]tofu_<model>_forget<NN>_<method>)"
    order: ClassVar[int] = 30

    def clues(self, release: Release) -> Clues:
        """Base is ``tofu_<model>_full``, the null the model retrained on the rest, both of the same owner."""
        models = [match["model"] for name in release.names if (match := _TOFU.match(name))]
        share = forgotten_share(release)
        if not models:
            return Clues()
        model, reason = models[0], "open-unlearning's rule of names"
        full = Named(f"{OWNER}/tofu_{model}_full", reason)
        owner = _ANCESTORS.get(model)
        ancestor = () if owner is None else (Named(f"{owner}/{model}", "open-unlearning's settings"),)
        if not share:
            return Clues(
                f"open-unlearning, {model}, by its name", (full,), ancestor=ancestor, prompting=asked_by(model)
            )
        rest = f"retain{RETAINED[share]}"
        return Clues(
            f"open-unlearning, {model}, by its name", (full,), null=(Named(f"{OWNER}/tofu_{model}_{rest}", reason),),
            floors=(f"neg_tofu_{model}_{rest}_lr*", f"tofu_{model}_{rest}_seed*"), ancestor=ancestor,
            prompting=asked_by(model),
        )  # fmt: skip
