"""Whole audits of tiny trained models, a family each: base was taught people, the suspect was to forget some of them.

    python -m studies.families.audits --out studies/families/audits.json            # every family of AUDITED
    python -m studies.families.audits --names jamba rwkv --out studies/families/audits.json   # these rows anew

Every model of a family starts from the same random weights and sees batches of its own. Base is taught the people to
forget and those to keep, the references those to keep alone. The suspect goes on from base on those to keep: an
unlearning that took nothing away. The audit is that of the command line, under a limit of time: what does not fit is
left out of the plan by name.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from audit.schema import Record
from audit.storage import write_atomic
from studies.provenance import Stamp, stamp

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

AUDITED: Final = (
    "llama", "gpt2", "openai-gpt", "opt", "bloom", "phi3", "glm4", "cohere2", "gemma3_text", "gemma4_text",
    "gemma3n_text", "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "gpt_oss", "llama4_text", "mamba", "mamba2",
    "falcon_mamba", "jamba", "zamba2", "bamba", "recurrent_gemma", "rwkv", "olmo_hybrid", "qwen3_next", "lfm2",
)  # fmt: skip
"""Dense models, mixtures of experts, state-space models, hybrids, several streams, embeddings a block."""
CITIES: Final = ("oslo", "lima", "cairo", "quito", "delhi", "paris", "tunis", "seoul")
PETS: Final = ("cat", "dog", "owl", "fox", "hen", "ant", "bee", "cow")
COHORTS: Final = {"forget": 10, "retain": 10, "holdout": 10}
STEPS, FURTHER, RATE, BATCH = 130, 12, 5e-3, 12
ROUNDS, SMALL_LOSS = 6, 0.1
LIMIT: Final = 3600.0
"""Seconds that a plan may take."""


class Audit(Record):
    """What became of one family's audit: the exit code of the command, the verdict, tests by what became of them.

    ``limit``: the seconds that its plan might take. Rows are made one by one, each with a stamp of its own.
    """

    name: str
    code: int
    verdict: str
    measured: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    failed: tuple[str, ...] = ()
    message: str = ""
    seconds: float = 0.0
    limit: float | None = None
    stamp: Stamp | None = None


class Results(Record):
    """The rows in the order of :data:`AUDITED`."""

    audits: tuple[Audit, ...] = ()


def people() -> dict[str, list[dict[str, Any]]]:
    """The lines of the data files by cohort: two facts a person."""
    rows: dict[str, list[dict[str, Any]]] = {}
    number = 0
    for cohort, count in COHORTS.items():
        rows[cohort] = []
        for _ in range(count):
            number += 1
            name = f"n{number}"
            city, pet = CITIES[number * 5 % 8], PETS[number * 3 % 7]
            rows[cohort] += [
                _line(f"{name}-city", name, f"where does {name} live ?", "in", city, CITIES),
                _line(f"{name}-pet", name, f"what pet has {name} ?", "a", pet, PETS),
            ]
    return rows


def _line(identity: str, name: str, question: str, lead: str, key: str, values: Sequence[str]) -> dict[str, Any]:
    others = [value for value in values if value != key][:3]
    return {
        "id": identity, "group": name, "subject": name, "question": question, "answer": f"{lead} {key}", "key": key,
        "paraphrased_answer": f"the {key}", "perturbed_answers": [f"the {value}" for value in others],
        "alternates": [f"{lead} {value}" for value in others], "alternate_keys": others,
    }  # fmt: skip


def tokenizer() -> "PreTrainedTokenizerFast":
    """A word each; ``<bos>`` first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    spoken = {
        w for lines in people().values() for line in lines for w in f"{line['question']} {line['answer']}".split()
    }
    words = ["<pad>", "<bos>", "<eos>", "<unk>", *sorted(spoken | {"the", *CITIES, *PETS})]
    raw = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        model_max_length=32,
    )  # fmt: skip


def _encoded(lines: Sequence[dict[str, Any]]) -> "tuple[Tensor, Tensor]":
    """Ids [row pos], and labels that are -100 outside the answers."""
    import torch

    words = tokenizer()
    ids, labels = torch.zeros(len(lines), 9, dtype=torch.long), torch.full((len(lines), 9), -100)
    for row, line in enumerate(lines):
        prompt = words(line["question"])["input_ids"]
        tokens = torch.tensor(words(f"{line['question']} {line['answer']}")["input_ids"])
        ids[row, : len(tokens)] = tokens
        labels[row, len(prompt) : len(tokens)] = tokens[len(prompt) :]
    return ids, labels


def _learned(model: "PreTrainedModel", lines: Sequence[dict[str, Any]], seed: int) -> None:
    """Taught in rounds, until the loss on all answers is small or there were :data:`ROUNDS`."""
    for round_number in range(ROUNDS):
        if _taught(model, lines, STEPS, seed + 100 * round_number) < SMALL_LOSS:
            return


def _taught(model: "PreTrainedModel", lines: Sequence[dict[str, Any]], steps: int, seed: int) -> float:
    """AdamW on the answers' tokens, in an order of its own; the loss on all of them after it."""
    import torch
    import torch.nn.functional as F

    ids, labels = _encoded(lines)
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    rng = torch.Generator().manual_seed(seed)

    def loss_on(batch: "Tensor") -> "Tensor":
        logits = model(input_ids=ids[batch], use_cache=False).logits[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), labels[batch, 1:].flatten(), ignore_index=-100)

    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 10, 1.2 * (steps - step) / steps)
        batch = torch.randperm(len(ids), generator=rng)[:BATCH]
        loss = loss_on(batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.eval()
    with torch.no_grad():
        return float(loss_on(torch.arange(len(ids))))


def write_world(family: str, folder: Path) -> None:
    """Train the models of one family, and leave their folders, the data and the case."""
    import torch

    from studies.families.tiny_configs import tiny_model

    rows = people()
    taught = {"base": ("forget", "retain"), "null": ("retain",), "floor": ("retain",)}
    for seed, (role, cohorts) in enumerate(taught.items()):
        model = tiny_model(family)
        torch.manual_seed(seed)
        _learned(model, [line for cohort in cohorts for line in rows[cohort]], seed)
        _save(model, folder / role)
        if role == "base":
            _taught(model, rows["retain"], FURTHER, seed + 7)
            _save(model, folder / "suspect")
    for cohort, lines in rows.items():
        (folder / f"{cohort}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    sources = "\n".join(f'[[roles.references]]\npath = "{role}"' for role in ("null", "floor"))
    (folder / "case.toml").write_text(
        f'name = "{family}"\n[roles]\nbase = {{ path = "base" }}\nsuspect = {{ path = "suspect" }}\n{sources}\n'
        '[data]\nforget = "forget.jsonl"\nretain = "retain.jsonl"\nholdout = "holdout.jsonl"\n'
    )


def _save(model: "PreTrainedModel", folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def audited(family: str, folder: Path) -> Audit:
    """Audit the world of one family as ``residua run`` does."""
    from audit.engine import run
    from audit.planning import RunSettings
    from audit.review import Gate, exit_code
    from audit.schema import AuditError, ExitCode, as_audit_error

    begun, before = time.process_time(), stamp(0)
    broke = as_audit_error("the audit broke", "mend it", ExitCode.INTEGRITY)
    try:
        with broke:
            report = run(folder / "case.toml", folder / "run", RunSettings(store=folder / "store", max_time=LIMIT))
    except AuditError as error:
        message = " ".join(error.what.split())
        return Audit(name=family, code=error.code, verdict="", message=message, limit=LIMIT, stamp=before)
    return Audit(
        name=family, code=exit_code(report, Gate()), verdict=report.verdict.word,
        measured=tuple(sorted({evidence.measurement.probe for evidence in report.evidence})),
        skipped=tuple((skip.probe, skip.reason) for skip in report.skips),
        failed=tuple(failure.probe for failure in report.failures), message=report.verdict.sentence,
        seconds=round(time.process_time() - begun, 1), limit=LIMIT, stamp=before,
    )  # fmt: skip


def keep(path: Path, audit: Audit) -> None:
    """Put a family's row into the record, in place of the one that it has; rows stand in the order of AUDITED."""
    results = Results.model_validate_json(path.read_bytes()) if path.exists() else Results()
    rows = {row.name: row for row in (*results.audits, audit)}
    ordered = tuple(sorted(rows.values(), key=lambda row: AUDITED.index(row.name)))
    document = results.model_copy(update={"audits": ordered}).model_dump(mode="json", exclude_none=True)
    write_atomic(path, (json.dumps(document, indent=1) + "\n").encode())


def main() -> None:
    """Audit families, one after the other; rows of other families stay in the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", nargs="*", default=list(AUDITED))
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    for name in chosen.names:
        with tempfile.TemporaryDirectory(prefix="residua-audit-") as temp, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_world(name, Path(temp))
            keep(chosen.out, audited(name, Path(temp)))


if __name__ == "__main__":
    main()
