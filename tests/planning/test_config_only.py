"""What a case costs before its weights are there, and what is said of models that do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest

from audit.case import CaseFile, case_text
from audit.cli.commands.plan import shown
from audit.engine import prepare, sketch
from audit.planning import RunSettings
from audit.schema import AuditError
from tests import planted_world

LLAMA_2_7B: dict[str, Any] = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096, "torch_dtype": "float16",
}  # fmt: skip
LLAMA_3_70B: dict[str, Any] = {
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192, "dtype": "bfloat16",
}  # fmt: skip
PARAMETERS = {"7B": 6_738_415_616, "70B": 70_553_706_496}
"""As they are published."""


def case_of(folder: Path, sizes: dict[str, Any]) -> CaseFile:
    """The planted case, its roles nothing but a config and a tokenizer."""
    case = planted_world.case("clean", references=("null",))
    for role in ("base", "clean", "null"):
        (folder / role).mkdir()
        planted_world.tokenizer().save_pretrained(folder / role)
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False, **sizes}
        (folder / role / "config.json").write_text(json.dumps(config))
    for cohort in ("forget", "retain", "holdout"):
        (folder / f"{cohort}.jsonl").write_bytes((planted_world.root() / f"{cohort}.jsonl").read_bytes())
    (folder / "case.toml").write_text(case_text(case))
    return CaseFile.read(folder / "case.toml")


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "sizes"), [("7B", LLAMA_2_7B), ("70B", LLAMA_3_70B)])
def test_a_case_is_priced_from_configs_alone(name: str, sizes: dict[str, Any], tmp_path: Path) -> None:
    case = case_of(tmp_path, sizes)
    with pytest.raises(AuditError, match=r"no model\.safetensors"):
        prepare(case, tmp_path / "run", RunSettings(device="cpu"))
    made = sketch(case, tmp_path / "run", RunSettings(device="cpu", store=tmp_path / "store"))
    prices, pricer = made.pricer.prices(made.planner), made.pricer
    assert pricer.parameters == PARAMETERS[name] and made.bench.dtype in ("float16", "bfloat16")
    assert prices.peak_bytes > 2 * PARAMETERS[name] and {price.source for price in prices.units} == {"arithmetic"}
    reads = prices.of("reads")
    assert reads.seconds.lo < 2 * PARAMETERS[name] * reads.cost.fwd_tokens / 1e9 and reads.seconds.hi > 1
    assert prices.notes[0].startswith(f"priced from configs alone: {PARAMETERS[name]:,} parameters")
    assert not (tmp_path / "run").exists()


def test_seventy_billions_are_told_not_to_fit_and_what_to_do(tmp_path: Path) -> None:
    case = case_of(tmp_path, LLAMA_3_70B)
    plain = shown(case, tmp_path / "run", RunSettings(device="cpu", store=None), config_only=True)
    said = [line for line in plain.shown if isinstance(line, str) and line.startswith("models: ")]
    assert any("ONE MODEL takes 141" in line and "--device-map auto" in line for line in said), said
    how = RunSettings(device="cpu", store=None, device_map="auto", max_memory="8G")
    away = shown(case, tmp_path / "run", how, config_only=True)
    said = [line for line in away.shown if isinstance(line, str)]
    assert any("weights are offloaded: " in line and "8 GB of each model are held" in line for line in said), said
    assert any("3 models of 8 GB do not fit into 8 GB together: roles are opened one after the other" in line
               for line in said), said  # fmt: skip
    skipped = [line for line in said if line.startswith("will not run: ")]
    assert [line.split(": ")[1] for line in skipped if "weights are offloaded" in line] == [
        "quantisation_recovery", "relapse", "relearning_recovery",
    ]  # fmt: skip
    peaks: list[Any] = [answer.document["price"]["peak_bytes"] for answer in (away, plain)]  # type: ignore[index, call-overload]
    assert peaks[0] < peaks[1] / 3
