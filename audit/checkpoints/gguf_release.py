"""A model in a .gguf file: config, tokenizer and codes in one, turned into a plain folder.

gguf's own arithmetic gives the values, transformers' tables the names and the config. A tensor that these tables have
no place for is an error, and so is an entry of the file that changes what the model computes and that they leave out
(scaled rotary positions, soft caps), unless the config that the model was made from lies beside it.
"""

import importlib.metadata
import logging
import re
from collections.abc import Generator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

from pydantic import JsonValue

from audit.checkpoints.conversion import UNSTATED, Named, Written, plain_config, write_folder
from audit.checkpoints.dequantiser import library_of
from audit.checkpoints.folder import read_json
from audit.checkpoints.gguf_rope import FREQUENCIES, check_stated, rope_of
from audit.checkpoints.staging import opening, staged_links
from audit.schema import AuditError, ExitCode, as_audit_error
from audit.storage import safetensors_file

log = logging.getLogger(__name__)

_PLAIN: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
# entries of the file that change what is computed; which of them the library reads differs from family to family
_CHANGES = re.compile(
    r"\.(rope\.(?!dimension_count|freq_base)|attention\.(sliding_window|scale|clamp_kqv|max_alibi_bias|causal)"
    r"|\w*softcapping|(logit|residual|embedding)_scale|expert_weights_(scale|norm)|use_parallel_residual)"
)
_CONFIG = "put the config.json that the model was made from beside the .gguf file, and give the folder"


def gguf_versions() -> dict[str, str]:
    """Package -> version, of those whose arithmetic and tables turn a file into a folder."""
    return {package: importlib.metadata.version(package) for package in ("gguf", "transformers")}


def gguf_config(file: Path) -> dict[str, JsonValue]:
    """The config.json of the model in a .gguf file, as transformers reads it from there, or as it lies beside it.

    AuditError (code 2): a family that the library does not read from such files, or an entry that it leaves out.
    """
    return dict(_gguf_config(file, safetensors_file.stamp(file)))


@lru_cache(maxsize=64)
def _gguf_config(file: Path, _stamp: tuple[int, ...]) -> Mapping[str, JsonValue]:
    reader = _reader(file)
    with _staged(file) as stage, opening(file.parent, stage, f"{file}: its config cannot be read", _CONFIG):
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        config: Any = AutoConfig.from_pretrained(stage, gguf_file=file.name, local_files_only=True)
        parsed = cast("dict[str, JsonValue]", _shortest(config.to_diff_dict()))
        architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if architecture is None:
        raise AuditError(
            f"{file}: holds a {config.model_type}, which is no causal language model", "give the folder of the release"
        )
    scaled = rope_of(reader, config, file, _CONFIG)
    _check_read(reader, file, parsed, besides=scaled)
    return plain_config(parsed) | scaled | {"architectures": [architecture], "dtype": _dtype(reader)}


def _dtype(reader: Any) -> str:
    """The dtype of the copy: that of most bytes where all tensors are floating point already, else bfloat16."""
    sizes: dict[str, int] = {}
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name
        sizes[kind] = sizes.get(kind, 0) + int(tensor.n_bytes)
    return _PLAIN[max(sizes, key=lambda kind: sizes[kind])] if sizes.keys() <= _PLAIN.keys() else UNSTATED


def _shortest(value: Any) -> Any:
    """Numbers as a config spells them: the file holds them in single precision, 1e-6 as 9.999999974752427e-07."""
    if isinstance(value, float):
        import numpy as np

        return float(str(np.float32(value)))
    if isinstance(value, dict):
        return {key: _shortest(inner) for key, inner in cast("dict[str, Any]", value).items()}
    return [_shortest(inner) for inner in cast("list[Any]", value)] if isinstance(value, list) else value


def _check_read(reader: Any, file: Path, parsed: Mapping[str, JsonValue], besides: Mapping[str, JsonValue]) -> None:
    """AuditError (code 2) for an entry that changes what is computed and that the library does not read."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_TO_TRANSFORMERS_MAPPING

    tables: Any = GGUF_TO_TRANSFORMERS_MAPPING["config"]
    family = _text(reader, "general.architecture")
    known = tables.get(family, {}) | tables.get(str(parsed.get("model_type")), {})
    for key in sorted(reader.fields):
        entry = key.removeprefix(f"{family}.")
        if key.startswith(f"{family}.") and _CHANGES.match(f".{entry}") and known.get(entry) is None:
            stated = reader.fields[key].contents()
            if stated in (None, False, 0, "none") or ("rope." in key and besides):
                continue
            raise AuditError(
                f"{file}: its entry {key} = {stated!r} changes what the model computes, and transformers does not read "
                f"it for {family}",
                _CONFIG,
            )


def convert_gguf(file: Path, out: Path, beside: bool) -> tuple[str, Written]:
    """Write the model in a .gguf file to ``out`` as a plain folder, its tokenizer too.

    ``beside``: a config.json that lies beside the file is the model's, and holds instead of what the file says.
    Returns what the file is called and what was written. AuditError: 2 where the library does not read such a file or
    leaves a part of it out.
    """
    path = file.parent / "config.json"
    config = plain_config(read_json(path)) if beside and path.is_file() else gguf_config(file)
    stream = _Stream(file, config)
    check_stated(stream.reader, config, file)
    write_folder(out, config | {"dtype": _dtype(stream.reader)}, stream.tensors())
    if "tokenizer.ggml.model" in stream.reader.fields:
        _save_tokenizer(file, out)
    kinds = ", ".join(f"{kind} ({n} tensors)" for kind, n in sorted(stream.kinds.items()))
    coded = sum(n for kind, n in stream.kinds.items() if kind not in _PLAIN)
    return f"GGUF: {kinds}", Written(coded, ("its values were rounded to bfloat16",) if coded else ())


def _save_tokenizer(file: Path, out: Path) -> None:
    """Write the file's tokenizer to ``out``, or say in the log why the library cannot read it."""
    from transformers import AutoTokenizer

    try:
        with _staged(file) as stage, as_audit_error(f"{file}: its tokenizer cannot be read", "", ExitCode.INPUT):
            tokenizer: Any = AutoTokenizer.from_pretrained(stage, gguf_file=file.name, local_files_only=True)
            tokenizer.save_pretrained(out)
    except AuditError as error:
        log.warning("%s", error.what)


class _Stream:
    """The tensors of one file under the names of the model, values computed one at a time."""

    def __init__(self, file: Path, config: Mapping[str, JsonValue]) -> None:
        from transformers.modeling_gguf_pytorch_utils import (
            TENSOR_PROCESSORS,
            TensorProcessor,
            get_gguf_hf_weights_map,
        )

        self.file, self.reader = file, _reader(file)
        self.kinds: dict[str, int] = {}
        self.parsed: dict[str, Any] = {"config": dict(config), "tensors": {}}
        built: Any = TENSOR_PROCESSORS.get(_text(self.reader, "general.architecture"), TensorProcessor)
        self.processor = built(config=self.parsed["config"])
        skeleton = _skeleton(config, file)
        with as_audit_error(f"{file}: its tensors cannot be named", _CONFIG):
            self.names: dict[str, str] = get_gguf_hf_weights_map(skeleton, self.processor)

    def tensors(self) -> Generator[Named]:
        """Name and values; experts that the library puts together from several tensors come last."""
        import torch

        dequantise = library_of("gguf", "GGUF").dequantize
        for tensor in self.reader.tensors:
            if tensor.name == FREQUENCIES:
                continue
            kind = tensor.tensor_type.name
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            with opening(self.file, self.file, f"{self.file}: tensor {tensor.name} ({kind}) cannot be read", _CONFIG):
                values = dequantise(tensor.data, tensor.tensor_type)
                done = self.processor.process(
                    weights=values, name=tensor.name, tensor_key_mapping=self.names, parsed_parameters=self.parsed
                )
            if done.name is None:
                continue
            if done.name not in self.names:
                raise AuditError(
                    f"{self.file}: tensor {tensor.name!r} has no place in the model as transformers builds it: "
                    "it would be left out",
                    "audit the folder that the file was made from",
                    ExitCode.INPUT,
                )
            wanted = getattr(torch, _PLAIN.get(kind, UNSTATED))
            yield self.names[done.name], torch.from_numpy(done.weights.copy()).to(wanted)
        for name, values in sorted(self.parsed["tensors"].items()):
            yield name, values.to(getattr(torch, UNSTATED))


def _skeleton(config: Mapping[str, JsonValue], file: Path) -> Any:
    """The model's modules without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    do = "check config.json beside the file" if (file.parent / "config.json").is_file() else _CONFIG
    with opening(file, file, f"{file}: no model can be built for it", do), torch.device("meta"):
        settings = {key: value for key, value in config.items() if key != "model_type"}
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(str(config["model_type"]), **settings))


def _reader(file: Path) -> Any:
    do = "fetch or copy the file again"
    library = library_of("gguf", "GGUF")
    with opening(file, file, f"{file}: no whole GGUF file", do, ExitCode.INTEGRITY):
        return library.GGUFReader(file)


def _staged(file: Path) -> Any:
    return staged_links(file.parent, (file.name,))


def _text(reader: Any, key: str) -> str:
    return str(reader.fields[key].contents()) if key in reader.fields else ""
