#!/usr/bin/env bash
# PhiMoE's `router_jitter_noise`: is it silent once a model is in eval mode, as jitter of routers is elsewhere?
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/venv"
"$here/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.4.6 2>/dev/null
cat > "$here/trial.py" <<'PY'
import torch
import transformers
from transformers import MixtralConfig, MixtralForCausalLM, PhimoeConfig, PhimoeForCausalLM

print("torch", torch.__version__, "transformers", transformers.__version__)
ids = torch.arange(40)[None]
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=4, num_local_experts=8, num_experts_per_tok=2)
for config_class, model_class in ((PhimoeConfig, PhimoeForCausalLM), (MixtralConfig, MixtralForCausalLM)):
    logits = []
    for noise in (0.01, 0.4):
        torch.manual_seed(0)
        model = model_class(config_class(**sizes, router_jitter_noise=noise)).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        with torch.no_grad():
            logits.append(model(input_ids=ids).logits)
    gap = (logits[0] - logits[1]).abs().max().item()
    print(model_class.__name__, "in eval, noise .01 and .4: logits apart", "none" if gap == 0 else "some")
PY
seen=$("$here/venv/bin/python" "$here/trial.py" 2>/dev/null)
echo "$seen"
echo "In words: PhiMoE masks experts by a threshold made of this entry in every forward pass, so that two configs that differ"
echo "in what is called noise are two models; Mixtral's entry of the same name acts in training alone."
[[ "$seen" == *"PhimoeForCausalLM in eval, noise .01 and .4: logits apart some"* && "$seen" == *"MixtralForCausalLM in eval, noise .01 and .4: logits apart none"* ]] || { echo "the behaviour has changed"; exit 1; }
