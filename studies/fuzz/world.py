"""The smallest case that is audited to its end: models of two blocks that were taught what six people own.

An ancestor, a base that was taught everybody but the holdout people, a suspect and two references that were taught the
retained ones alone. Made from a seed in a few seconds; the files are those that users give.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from audit.planning import RunSettings

COHORTS: Final = ("forget", "retain", "holdout")
ROLES: Final = ("base", "suspect", "null", "ancestor")
DONE: Final = "done"
"""The run folder of a finished audit, in the case's folder."""
PACKAGE: Final = "fuzz_probes"
_PEOPLE: Final = 6
_OWNED: Final = ("violin", "saddle", "kettle", "anchor", "lantern", "carpet", "mirror", "basket")
CASE: Final = """name = "fuzzed"
edited = "all"
seed = 1

[roles]
base = { path = "base" }
suspect = { path = "suspect" }
references = [{ path = "null" }]
ancestor = { path = "ancestor" }

[data]
forget = "forget.jsonl"
retain = "retain.jsonl"
holdout = "holdout.jsonl"
"""


def items(cohort: str) -> list[dict[str, Any]]:
    """The rows of a cohort: two facts of each person."""
    start = COHORTS.index(cohort) * _PEOPLE
    rows: list[dict[str, Any]] = []
    for person in range(start, start + _PEOPLE):
        for verb in ("owns", "sells"):
            thing = _OWNED[(3 * person + len(verb)) % len(_OWNED)]
            others = [other for other in _OWNED if other != thing][:3]
            rows.append(
                {
                    "id": f"{cohort}-{person}-{verb}", "group": f"person{person}", "answer": f"the old {thing}",
                    "question": f"tell me what person{person} {verb} today", "key": thing,
                    "perturbed_answers": [f"the old {other}" for other in others],
                    "alternates": [f"the old {other}" for other in others], "alternate_keys": others,
                }
            )  # fmt: skip
    return rows


def tokenizer() -> PreTrainedTokenizerFast:
    """Word level, of the words of all cohorts."""
    texts = [f"{row['question']} {row['answer']}" for cohort in COHORTS for row in items(cohort)]
    words = ["<pad>", "<bos>", "<unk>", *sorted({*_OWNED, *(word for text in texts for word in text.split())})]
    raw = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>", model_max_length=32
    )


def write_world(folder: Path) -> Path:
    """Train the five models and write the case with its data."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        ancestor = _taught(None, (), 0)
        base = _taught(ancestor, ("retain", "forget"), 1)
        rest = {name: _taught(ancestor, ("retain",), seed) for seed, name in enumerate(("suspect", "null"), 2)}
    for name, model in {"ancestor": ancestor, "base": base, **rest}.items():
        model.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    for cohort in COHORTS:
        lines = [json.dumps(row) for row in items(cohort)]
        (folder / f"{cohort}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "case.toml").write_text(CASE, encoding="utf-8")
    return folder


def write_probes(folder: Path) -> None:
    """A package of two of the probes, so that an input is measured and judged in about a second."""
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Two probes."""\n', encoding="utf-8")
    for name in ("forget_likelihood", "utility"):
        shutil.copy(Path(__file__).parents[2] / "probes" / f"{name}.py", folder)


def settings(root: Path) -> RunSettings:
    """How a copy of the world is audited: by the two probes, nothing kept between passes."""
    return RunSettings(package=PACKAGE, store=None, calibrations=root / "none", allow_undecided=True)


def finish_audit(world: Path) -> None:
    """Audit the sound case to its end, into its folder; the package of two probes can be imported."""
    from audit import engine
    from audit.case import CaseFile

    (world / "none").mkdir()
    engine.run(CaseFile.read(world / "case.toml"), world / DONE, settings(world))


def _taught(parent: LlamaForCausalLM | None, cohorts: tuple[str, ...], seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    words = tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=32, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=None,
        )
    )  # fmt: skip
    if parent is not None:
        model.load_state_dict(parent.state_dict())
    rows = [f"{row['question']} {row['answer']}" for cohort in cohorts for row in items(cohort)]
    if not rows:
        return model.eval()
    ids = torch.tensor([words(row)["input_ids"] for row in rows])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        batch = ids[torch.randperm(len(ids))[: max(len(ids) // 2, 1)]]
        optimiser.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimiser.step()
    return model.eval()
