"""Releases without weights: folders, settings and cards, as pools lay them out."""

import json
from collections.abc import Mapping
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
QWEN = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
"""A chat template in the manner of Qwen3: told not to think, it puts an empty thought before the answer."""
ALWAYS_THINKING = (
    "{{- bos_token }}{%- for m in messages %}{{- m.role + ' : ' + m.content + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'assistant : <think>\\n' }}{%- endif %}"
)
"""One that opens a thought whatever it is told, as distilled reasoners have it."""
LLAMA = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- endif %}{{- 'Today Date: ' + date_string + '\\n' }}"
    "{%- for m in messages %}{{- m.role + ' : ' + m.content + '\\n' }}{%- endfor %}"
)
"""One in the manner of Llama 3.2: the date of the day, unless one is given."""


def model(folder: Path, chat: str = "", **config: object) -> Path:
    """A model folder with a config and, if asked for, a chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    if chat:
        (folder / "chat_template.jinja").write_text(chat)
    return folder


def adapter(folder: Path, on: str) -> Path:
    """An adapter folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": on, "peft_type": "LORA"}))
    return folder


def card(folder: Path, **front: object) -> None:
    """A model card with this front matter."""
    lines = "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items())
    (folder / "README.md").write_text(f"---\n{lines}\n---\n\n# A model\n")


def rows(path: Path, row: Mapping[str, object], n: int = 20) -> Path:
    """A data file of so many equal rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(n)))
    return path


def tofu_data(folder: Path, split: str = "forget10", retain: str = "retain90") -> None:
    """TOFU's files of one split."""
    for name in (split, retain):
        rows(folder / f"{name}.json", {"question": "who?", "answer": "she."}, 40)


def hub_model(cache: Path, name: str) -> Path:
    """The snapshot of a hub model in the cache, whose main branch is at :data:`COMMIT`."""
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    return model(home / "snapshots" / COMMIT)
