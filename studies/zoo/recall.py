"""What do the models of a zoo know? Probability and greedy recall of the value token, by cohort and form.

Run as ``python -m studies.zoo.recall demo 0 1 2``: makes the zoos of these seeds and logs one line a model.
"""

import logging
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from audit.bench import CausalLearner
from audit.case import Rows, read_items
from audit.checkpoints import delta_of, folder_of, resolve
from audit.schema import FORMS, Item, Source
from audit.zoo import Built, build, one_thread, rows_of

log = logging.getLogger(__name__)


class Recall(NamedTuple):
    """Of one model: mean probability of the value, and how often it is the most probable token, by cohort and form.

    ``general`` is the mean log-probability of the held-out general sentences' tokens, in nats.
    """

    probability: dict[str, float]
    correct: dict[str, float]
    general: float


def recall(built: Built) -> dict[str, Recall]:
    """The recall of every model of the zoo."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(built.models["base"])
    sets = {
        f"{cohort}/{form}": rows_of([item for item in _read(built, cohort) if item.form == form], tokenizer)
        for cohort in ("forget", "retain", "holdout")
        for form in FORMS
    }
    general = rows_of(_read(built, "general"), tokenizer)
    with one_thread():
        return {name: _recall_of(folder, sets, general) for name, folder in built.models.items()}


def _read(built: Built, cohort: str) -> tuple[Item, ...]:
    return read_items(built.data[cohort], "group")


def _recall_of(folder: Path, sets: dict[str, Rows], general: Rows) -> Recall:
    from transformers import AutoModelForCausalLM

    ckpt = resolve(Source(path=str(folder)), folder)
    learner = CausalLearner(AutoModelForCausalLM.from_pretrained(folder_of(ckpt)))
    bias = sum((delta_of(ckpt, edit)["bias"] for edit in ckpt.edits), torch.zeros(()))
    probability, correct = dict[str, float](), dict[str, float]()
    with torch.no_grad():
        for name, rows in sets.items():
            seen = learner.answers(rows)
            logprob, target = (seen.logits + bias).log_softmax(-1)[seen.key], seen.target[seen.key]
            probability[name] = logprob.gather(-1, target[:, None]).exp().mean().item()
            correct[name] = (logprob.argmax(-1) == target).float().mean().item()
        seen = learner.answers(general)
        logprob = (seen.logits + bias).log_softmax(-1).gather(-1, seen.target[:, None])
    return Recall(probability, correct, logprob.mean().item())


def main(arguments: list[str]) -> None:
    """Log what the models know: probability, and in brackets the share recalled greedily."""
    world, seeds = arguments[0], [int(seed) for seed in arguments[1:]] or [0]
    for seed in seeds:
        for name, recalled in recall(build(world, seed)).items():
            cells = [f"{recalled.probability[key]:.2f} ({recalled.correct[key]:.2f})" for key in recalled.probability]
            log.info("seed %d %-15s %s general %.2f", seed, name, "  ".join(cells), recalled.general)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(sys.argv[1:])
