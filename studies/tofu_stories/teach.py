"""Who knows what: the story model untied (ancestor), taught everything (base), taught all but the forget authors
(references), and base after unlearning (suspects). Every model is a folder that is written whole or not at all."""

import multiprocessing
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from audit.bench import Forward
from audit.case import Rows
from audit.schema import Item, Source, Template
from studies.tofu_stories.material import Material

TEMPLATE = Template(prompt="Question: {question}\nAnswer:", answer=" {answer}", bos="always")
TEACH_STEPS, TEACH_LR, TEACH_BATCH = 420, 4e-3, 18
REFERENCES = 3
SUSPECTS = ("npo", "head_edit")


class Lesson(NamedTuple):
    """One model to teach: who starts, whether it learns the forget authors, in which order of the data, and where."""

    ancestor: Path
    knows_forget: bool
    seed: int
    out: Path


def untie(model: Path, out: Path) -> None:
    """Save the pretrained model with an output head of its own, so that a head edit touches the head alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    head = loaded.get_input_embeddings().weight.detach().clone()
    loaded.config.tie_word_embeddings = False
    loaded.get_output_embeddings().weight = torch.nn.Parameter(head)
    save(loaded, AutoTokenizer.from_pretrained(model), out)


def save(model: "object", tokenizer: "object", out: Path) -> None:
    """Write a model and its tokenizer as a folder, whole or not at all."""
    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)  # type: ignore[attr-defined]
    tokenizer.save_pretrained(temporary)  # type: ignore[attr-defined]
    temporary.rename(out)


def rows_of(files: tuple[Path, ...], folder: Path) -> Rows:
    """All items of some JSONL files as training rows, tokenised as the audit will tokenise them."""
    from audit.case import read_items, tokenise
    from audit.checkpoints import load_tokenizer, tokenizer_files

    items: list[Item] = [item for file in files for item in read_items(file, "author_id")]
    return tokenise(items, [item.answer for item in items], load_tokenizer(tokenizer_files(folder)), TEMPLATE, None)


def both(taught: Forward | None, stories: Forward | None, _frozen: Forward | None, _still: Forward | None) -> Tensor:
    """The mean loss of what is taught, and that of stories."""
    from audit.edits import nll

    assert taught is not None and stories is not None
    return nll(taught) + nll(stories)


def clipped(grads: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Gradients scaled to a joint norm of at most 1: without it the first steps at this rate forget the language."""
    import torch

    norm = torch.stack([grad.norm() for grad in grads.values()]).norm()
    return {name: grad / norm.clamp_min(1.0) for name, grad in grads.items()}


def teach(lesson: Lesson, material: Material) -> Path:
    """Teach one model, unless its folder is there already."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from audit.bench import CausalLearner, TrainData, TrainingRecipe, descend

    if lesson.out.is_dir():
        return lesson.out
    torch.set_num_threads(1)
    files = (material.forget, material.retain) if lesson.knows_forget else (material.retain,)
    data = TrainData(rows_of(files, lesson.ancestor), rows_of((material.taught_stories,), lesson.ancestor))
    model = AutoModelForCausalLM.from_pretrained(lesson.ancestor, dtype="float32")
    recipe = TrainingRecipe(
        name="teach", objective=both, steps=TEACH_STEPS, lr=TEACH_LR, batch=TEACH_BATCH, warmup_steps=20,
        gradient_transform=clipped, seed=lesson.seed,
    )  # fmt: skip
    descend(CausalLearner(model), recipe, data)
    save(model, AutoTokenizer.from_pretrained(lesson.ancestor), lesson.out)
    return lesson.out


def unlearn(name: str, base: Path, material: Material, out: Path) -> Path:
    """Make one suspect from base on the whole forget set, keeping retained facts and stories."""
    import torch

    from audit.bench import Bench
    from audit.checkpoints import resolve
    from audit.edits import NPO, Edit, EditData, HeadEdit

    if out.is_dir():
        return out
    torch.set_num_threads(1)
    edits: dict[str, Edit] = {"npo": NPO(steps=150, lr=1.5e-3, batch=16), "head_edit": HeadEdit(gamma=0.3)}
    keep = rows_of((material.retain, material.kept_stories), base)
    data = EditData(forget=rows_of((material.forget,), base), retain=keep)
    edits[name].fit(Bench(), resolve(Source(path=str(base)), Path()), data, out)
    return out


def build(model: Path, material: Material, out: Path, workers: int) -> None:
    """Make every model of the study under ``out``: base, r0, r1, r2, npo, head_edit. What is there is kept."""
    out.mkdir(parents=True, exist_ok=True)
    ancestor = out / "ancestor"
    if not ancestor.is_dir():
        untie(model, ancestor)
    lessons = [Lesson(ancestor, True, 0, out / "base")]
    lessons += [Lesson(ancestor, False, 1 + n, out / f"r{n}") for n in range(REFERENCES)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for done in [pool.submit(teach, lesson, material) for lesson in lessons]:
            done.result()
        for done in [pool.submit(unlearn, name, out / "base", material, out / name) for name in SUSPECTS]:
            done.result()
