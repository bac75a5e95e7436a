"""Edge attribution by transformer_lens 4.3, for comparison. Run it with a Python that has that version:

    python lens_edges.py FOLDER OUT REPEATS

FOLDER holds ``pairs.json`` and one model folder per name in it. transformer_lens 4 and sae_lens need different
environments, so this file imports nothing of ours. The metric is the mean log-likelihood of the answer's tokens. Scores
are summed over positions; passes are counted where they happen.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

Metric = Callable[[torch.Tensor], torch.Tensor]


def metric(ids: list[int], start: int) -> Metric:
    """Mean log-likelihood of ``ids[start:]``."""
    target = torch.tensor(ids[start:])

    def of(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, start - 1 : -1].log_softmax(-1).gather(-1, target[:, None]).mean()

    return of


def writer(node: Any) -> str:
    """Our name of a writer."""
    if node.kind == "embed":
        return "embed"
    return f"a{node.layer}.h{node.head}" if node.kind == "attn_head_out" else f"m{node.layer}"


def reader(node: Any) -> str:
    """Our name of a reader."""
    if node.kind in ("logits", "mlp_in"):
        return "final" if node.kind == "logits" else f"m{node.layer}"
    return f"{node.kind[0]}{node.layer}.h{node.head}"


def scores(model: Any, pair: dict[str, Any]) -> dict[str, float]:
    """Position-summed scores of one pair, in the library's own sign: towards clean, gradients of the corrupt run."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

    clean, other = torch.tensor([pair["clean"]]), torch.tensor([pair["other"]])
    config = EdgeAttributionConfig(granularity="edge")
    attributions = attribution_patch(model, clean, other, metric(pair["clean"], pair["start"]), config)
    total: dict[str, float] = {}
    for (source, target), value in attributions.edge_scores.items():
        name = f"{writer(source)} -> {reader(target)}"
        total[name] = total.get(name, 0.0) + value
    return total


def counted(model: Any, pair: dict[str, Any]) -> dict[str, int]:
    """How many forwards and backwards one pair takes."""
    passes = {"forward": 0, "backward": 0}
    real = torch.autograd.grad

    def forward(*_: object) -> None:
        passes["forward"] += 1

    def backward(*args: Any, **kwargs: Any) -> Any:
        passes["backward"] += 1
        return real(*args, **kwargs)

    handle = model.original_model.register_forward_pre_hook(forward)
    torch.autograd.grad = backward  # type: ignore[assignment]
    try:
        scores(model, pair)
    finally:
        torch.autograd.grad = real
        handle.remove()
    return passes


def main(folder: Path, out: Path, repeats: int) -> None:
    """Score every pair of every model, and time them."""
    from transformer_lens.model_bridge import TransformerBridge

    torch.set_num_threads(1)
    models: dict[str, Any] = {}
    for name, pairs in json.loads((folder / "pairs.json").read_text(encoding="utf-8")).items():
        model = TransformerBridge.boot_transformers(str((folder / name).resolve()), device="cpu", dtype=torch.float32)
        model.eval()
        rows, seconds = [scores(model, pair) for pair in pairs], []
        for _ in range(repeats):
            begin = time.process_time()
            for pair in pairs:
                scores(model, pair)
            seconds.append(time.process_time() - begin)
        models[name] = {"rows": rows, "passes": counted(model, pairs[0]), "cpu_s": seconds}
    versions = {name: version(name) for name in ("transformer-lens", "torch", "transformers")}
    out.write_text(json.dumps({"versions": versions, "models": models}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
