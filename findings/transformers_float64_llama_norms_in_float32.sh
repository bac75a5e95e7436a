#!/usr/bin/env bash
# A model of transformers opened in float64: does it compute in float64?
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/venv"
"$here/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.4.6 2>/dev/null
cat > "$here/trial.py" <<'PY'
import os

os.environ["HF_HUB_OFFLINE"] = "1"
from importlib.metadata import version

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

print("torch", version("torch"), "transformers", version("transformers"))
torch.manual_seed(0)
small = {"vocab_size": 32}
llama = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, **small))
gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=16, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **small))
ids = torch.tensor([[1, 5, 9, 3]])
for name, model in (("llama", llama), ("gpt2", gpt2)):
    model = model.to(torch.float64).eval()
    with torch.no_grad():
        before = model(input_ids=ids).logits
        embedding = model.get_input_embeddings().weight
        embedding[1, 0] += 1e-12  # a change that double precision resolves, and single precision does not
        moved = (model(input_ids=ids).logits - before).abs().max().item()
    print(f"{name}: dtype {before.dtype}, logits move by {moved:.1e} when an input moves by 1e-12")
norm = llama.model.norm
x = torch.randn(3, 32, dtype=torch.float64)
exact = norm.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
print(f"llama norm in float64 against its formula: {(norm(x) - exact).abs().max().item():.1e}")
PY
seen=$("$here/venv/bin/python" "$here/trial.py" 2>/dev/null)
echo "$seen"
echo "In words: a Llama opened in float64 returns float64 logits, but its norms pass through float32, so that its states"
echo "hold seven digits and not sixteen; a GPT-2 opened in float64 keeps them."
"$here/venv/bin/python" - "$seen" <<'PY'
import re, sys
error = float(re.search(r"formula: ([\d.e+-]+)", sys.argv[1])[1])
sys.exit(not 1e-9 < error < 1e-5)
PY
