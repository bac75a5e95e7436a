"""Five folders as their pools lay them out, with tiny models in them: the files, their names, and nothing else.

Names, file by file, are those of huggingface.co/open-unlearning, cais/Zephyr_RMU, muse-bench, of PEFT and of GGUF
converters; weights, tokenizer and data are this study's own.
"""

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final, cast

import torch
from transformers import LlamaForCausalLM

from audit.bench import CausalLearner, descend
from audit.storage import cache_root
from audit.zoo import one_thread
from studies.releases import benchmark_rows, tiny_models
from studies.releases.benchmark_rows import (
    Authors,
    Row,
    authors,
    choice_rows,
    text_rows,
    tofu_perturbed_rows,
    tofu_rows,
)
from studies.releases.tiny_models import (
    ADAPTED,
    MISDIRECTED,
    REFUSING,
    Pool,
    Taught,
    forgetting,
    taught,
    tokenizer,
    unlearned,
    write,
)

LORA_LAYERS: Final = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LLAMA: Final = "Llama-3.2-1B-Instruct"
REFUSED: Final = f"unlearn_tofu_{LLAMA}_forget10_IdkNLL_lr1e-03_alpha1_epoch10"


@lru_cache(maxsize=3)
def _taught(pool: Pool, seed: int, retrained: int) -> tuple[Authors, Taught]:
    """The world, and the models that learned it: trained, or found where an earlier call kept them."""
    known = authors(seed)
    sources = b"".join(Path(module.__file__ or "").read_bytes() for module in (benchmark_rows, tiny_models))
    key = hashlib.sha256(sources + f"{pool} {seed} {retrained}".encode()).hexdigest()[:16]
    home = cache_root() / "releases" / f"{pool}-{seed}-{key}"
    names = ("base", *(f"retrained-{n}" for n in range(retrained)))
    if not home.is_dir():
        models = taught(known, pool, seed, retrained)
        unfinished = home.with_name(f".{home.name}.{os.getpid()}.tmp")
        for name, model in zip(names, (models.base, *models.retrained), strict=True):
            write(model, unfinished / name)
        unfinished.rename(home)
    base, *others = (LlamaForCausalLM.from_pretrained(home / name) for name in names)
    return known, Taught(base, tuple(others))


def _jsonl(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _card(folder: Path, front: Mapping[str, str | list[str]], words: str) -> None:
    lines = [f"{key}: {json.dumps(value)}" for key, value in front.items()]
    (folder / "README.md").write_text("---\n" + "\n".join(lines) + f"\n---\n\n{words}\n", encoding="utf-8")


def _tofu_data(folder: Path, known: Authors) -> None:
    """The files of locuslab/TOFU that an audit of forget10 reads, as they are named there."""
    retain = known.retain[: len(known.forget)]
    for name, rows in {
        "forget10": tofu_rows(known.forget), "forget10_perturbed": tofu_perturbed_rows(known.forget),
        "retain90": tofu_rows(known.retain), "retain_perturbed": tofu_perturbed_rows(retain),
        "holdout10": tofu_rows(known.holdout), "world_facts_perturbed": tofu_perturbed_rows(known.facts),
    }.items():  # fmt: skip
        _jsonl(folder / f"{name}.json", rows)


def _tofu_pool(root: Path, seed: int) -> tuple[Authors, Taught]:
    """Base, the retrained model and the data of TOFU, beside which a release of TOFU lies."""
    known, models = _taught("tofu", seed, 2)
    write(models.base, root / f"tofu_{LLAMA}_full")
    write(models.retrained[0], root / f"tofu_{LLAMA}_retain90")
    write(models.retrained[1], root / f"neg_tofu_{LLAMA}_retain90_lr1e-05_wd0.01_epoch5")
    _tofu_data(root / "TOFU", known)
    return known, models


# ---- the five ---------------------------------------------------------------------------------------------------
def open_unlearning(root: Path, seed: int) -> Path:
    """A model of open-unlearning's pool: its name says everything, its card nothing; evaluations beside the weights."""
    known, models = _tofu_pool(root, seed)
    release = root / REFUSED
    write(unlearned(models.base, REFUSING, forgetting(known, "tofu")), release)
    _card(release, {"library_name": "transformers", "tags": []}, "# Model Card for Model ID")
    scores = {"forget_quality": {"agg_value": 1e-4}, "model_utility": {"agg_value": 0.9}}
    (release / "evals").mkdir()
    (release / "evals" / "TOFU_EVAL.json").write_text(json.dumps(scores, indent=2), encoding="utf-8")
    (release / "evals" / "TOFU_SUMMARY.json").write_text(
        json.dumps({name: entry["agg_value"] for name, entry in scores.items()}, indent=2), encoding="utf-8"
    )
    return release


def wmdp_rmu(root: Path, seed: int) -> Path:
    """A model of the kind of Zephyr_RMU: base is named by the folder alone, nobody was retrained, data are choices."""
    known, models = _taught("wmdp", seed, 0)
    write(models.base, root / "zephyr-7b-beta")
    release = root / "Zephyr_RMU"
    write(unlearned(models.base, MISDIRECTED, forgetting(known, "wmdp")), release)
    _card(
        release, {"license": "mit", "datasets": ["cais/wmdp", "cais/wmdp-corpora"], "language": ["en"]},
        "# Zephyr RMU\n\nZephyr 7B with hazardous knowledge about biology unlearned by RMU.",
    )  # fmt: skip
    _parquet(root / "wmdp" / "wmdp-bio" / "test-00000-of-00001.parquet", choice_rows(known.sampled(known.forget), seed))
    _parquet(root / "mmlu" / "test-00000-of-00001.parquet", choice_rows(known.sampled(known.retain), seed))
    _jsonl(root / "wikitext.jsonl", text_rows(known.general))
    return release


def _parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)


def muse_news(root: Path, seed: int) -> Path:
    """A model that was to forget MUSE's news, beside MUSE's own target and retrained models and its folder of data."""
    known, models = _taught("muse", seed, 1)
    write(models.base, root / "MUSE-news_target")
    write(models.retrained[0], root / "MUSE-news_retrain")
    release = root / "muse_Llama-2-7b-hf_News_IdkNLL"
    write(unlearned(models.base, REFUSING, forgetting(known, "muse")), release)
    data = root / "MUSE-News"
    for name, items in (("forget_qa", known.sampled(known.forget)), ("retain_qa", known.sampled(known.retain))):
        path = data / "knowmem" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(tofu_rows(items), indent=1), encoding="utf-8")
    _jsonl(data / "raw" / "retain2.json", text_rows(known.general))
    return release


def lora_over_4bit(root: Path, seed: int) -> Path:
    """An adapter that was trained to refuse, on a base in four bits that lies beside it; its card names that base."""
    from peft import LoraConfig, get_peft_model

    known, models = _tofu_pool(root, seed)
    base = root / f"tofu_{LLAMA}_full-bnb-4bit"
    in_four_bits(root / f"tofu_{LLAMA}_full", base)
    release = root / f"tofu_{LLAMA}_forget10_IdkNLL_lora"
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = LoraConfig(r=16, lora_alpha=32, target_modules=LORA_LAYERS, task_type="CAUSAL_LM")
        adapted = get_peft_model(copy.deepcopy(models.base), settings)
        recipe, rows = ADAPTED.lesson(forgetting(known, "tofu"), models.base.config.num_hidden_layers)
        learner = CausalLearner(cast(LlamaForCausalLM, adapted.get_base_model()))
        descend(learner, replace(recipe, trainable=r".*lora_.*"), rows)
    adapted.peft_config["default"].base_model_name_or_path = f"someone/{base.name}"
    adapted.save_pretrained(release)
    tokenizer().save_pretrained(release)
    return release


def in_four_bits(folder: Path, out: Path) -> None:
    """The same model in NF4, as bitsandbytes saves it, with its tokenizer."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    AutoModelForCausalLM.from_pretrained(folder, quantization_config=nf4, device_map="cpu").save_pretrained(out)
    tokenizer().save_pretrained(out)


def gguf(root: Path, seed: int) -> Path:
    """A copy in eight bits for llama.cpp of a model that open-unlearning's pool has, which its card names."""
    from studies.quantised import gguf_writer

    release = open_unlearning(root, seed)
    out = root / f"{REFUSED}-GGUF"
    out.mkdir()
    url = f"https://huggingface.co/open-unlearning/{REFUSED}"
    entries = {"general.base_model.count": 1, "general.base_model.0.repo_url": url}
    gguf_writer.write(release, out / f"{REFUSED}-Q8_0.gguf", entries=entries)
    front = {"base_model": f"open-unlearning/{REFUSED}", "base_model_relation": "quantized", "library_name": "gguf"}
    _card(out, front, "Quantised for llama.cpp.")
    return out


LAYOUTS: Final[Mapping[str, Callable[[Path, int], Path]]] = {
    "open_unlearning": open_unlearning, "wmdp_rmu": wmdp_rmu, "muse_news": muse_news, "lora_over_4bit": lora_over_4bit,
    "gguf": gguf,
}  # fmt: skip
"""Makers of the five, by name: each writes a pool's folder into an empty one and hands back the release in it."""
