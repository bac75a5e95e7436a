#!/usr/bin/env bash
# The image tokens of a row by Gemma 3's processor: does its `image_token_id` count what its `image_seq_length` promises?
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/venv"
"$here/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 pillow==11.3.0 numpy==2.2.6 2>/dev/null
cat > "$here/trial.py" <<'PY'
import numpy as np
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

words = ["<unk>", "<soft>", "<begin>", "<end>", "a", "cat"]
plain = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
special = {"image_token": "<soft>", "boi_token": "<begin>", "eoi_token": "<end>"}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", extra_special_tokens=special)
processor = Gemma3Processor(Gemma3ImageProcessorPil(size={"height": 8, "width": 8}), tokenizer, image_seq_length=4)
seen = processor(images=[np.zeros((8, 8, 3), np.uint8)], text=["<begin> a cat"])
ids = list(seen["input_ids"][0])
print("transformers", transformers.__version__, "processor", type(processor).__name__)
print("image_seq_length", processor.image_seq_length, "ids", ids)
print("counted by processor.image_token_id:", ids.count(processor.image_token_id))
print("counted by tokenizer.image_token_id:", ids.count(tokenizer.image_token_id))
PY
seen=$("$here/venv/bin/python" "$here/trial.py" 2>/dev/null)
echo "$seen"
echo "In words: the image token that Gemma 3's processor names is the one that begins an image, of which a row has one;"
echo "the places that a model fills with image features are those of the tokenizer's image token. Counting places by the"
echo "processor, as is right for LLaVA and Llama 3.2 Vision, finds one for each image."
[[ "$seen" == *"processor.image_token_id: 1"* && "$seen" == *"tokenizer.image_token_id: 4"* ]] || { echo "the behaviour has changed"; exit 1; }
