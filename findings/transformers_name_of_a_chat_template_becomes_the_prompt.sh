#!/usr/bin/env bash
# A tokenizer with one chat template, asked for a template by a name that it does not have: what does the model read?
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/venv"
"$here/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.1 jinja2==3.1.6 2>/dev/null
cat > "$here/trial.py" <<'PY'
import os

os.environ["HF_HUB_OFFLINE"] = "1"
from importlib.metadata import version

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

print("transformers", version("transformers"), "jinja2", version("jinja2"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")))
messages = [{"role": "user", "content": "Who wrote it?"}]
plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
for name, templates in (("one template", plain), ("two templates", {"default": plain, "rag": "RAG " + plain})):
    tokenizer.chat_template = templates
    for asked in (None, "rag", "rga"):
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, chat_template=asked)
        print(f"{name}, chat_template={asked!r}: {prompt!r}")
PY
seen=$("$here/venv/bin/python" "$here/trial.py" 2>/dev/null)
echo "$seen"
echo "In words: apply_chat_template takes the name of a chat template or a template; a name that the tokenizer does not"
echo "have is taken as a template, so that the prompt is the name itself and the question is dropped, without an error."
for line in "one template, chat_template='rag': 'rag'" "two templates, chat_template='rga': 'rga'"; do
    [[ "$seen" == *"$line"* ]] || { echo "the behaviour has changed: no line $line"; exit 1; }
done
