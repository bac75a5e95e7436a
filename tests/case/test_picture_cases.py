"""A case of questions about pictures, opened: image tokens as the processor counts them, and every mismatch by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from audit.case import OpenCase, load_case, open_case, tokenise
from audit.case.chat_template import ChatPrompt
from audit.case.picture_template import PictureTemplate
from audit.checkpoints import fingerprint, resolve
from audit.checkpoints.picture_settings import picture_settings
from audit.schema import AuditError, Item, Source, Template, Texts
from audit.wording import PICTURE, PICTURES
from tests import picture_toy, toy, toy_vlm
from tests.picture_toy import IMAGE, TOKENS, VOCAB

FORGET, RETAIN = Texts(cohort="forget"), Texts(cohort="retain")
TOKEN = VOCAB - 1


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A whole case in a folder, ready to be damaged."""
    for seed, role in enumerate(picture_toy.ROLES):
        shutil.copytree(picture_toy.folder(seed), tmp_path / role)
    picture_toy.write_case(tmp_path, **{role: tmp_path / role for role in picture_toy.ROLES})
    return tmp_path


def opened(root: Path, **template: Any) -> OpenCase:
    case = load_case(root / "case.toml")
    return open_case(case.model_copy(update={"template": Template(**template)}), root, root / "out")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    rows = rows_of(path)
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# ---- rows -------------------------------------------------------------------------------------------------------
def test_rows_hold_what_the_processor_itself_makes_of_picture_and_words(root: Path) -> None:
    case = opened(root)
    assert case.modality == "image+text" and case.replicate is PICTURE
    rows, items = case.rows(FORGET), case.items(FORGET)
    own = picture_toy.processor()(
        images=[case.pictures[item.id] for item in items], return_tensors="pt",
        text=[f"{IMAGE}\n{item.question} {item.answer}" for item in items],
    )  # fmt: skip
    assert torch.equal(rows.ids, own["input_ids"])
    torch.testing.assert_close(rows.extra["pixel_values"], own["pixel_values"])
    assert ((rows.ids == TOKEN).sum(1) == TOKENS).all()
    spans = [rows.ids[n, a:b].tolist() for n, (a, b) in enumerate(rows.answer_spans.tolist())]
    assert spans == [picture_toy.tokenizer()(item.answer, add_special_tokens=False)["input_ids"] for item in items]


def test_a_concept_s_word_is_found_by_its_characters_and_never_as_a_bare_space(root: Path) -> None:
    rewrite(root / "forget.jsonl", lambda row: row.update(answer="the pet is gold .", key="gold", alternates=[]))
    rows = opened(root).rows(FORGET)
    word = picture_toy.tokenizer().convert_tokens_to_ids("gold")
    assert rows.ids[rows.key].tolist() == [word] * len(rows) and rows.key.sum(1).tolist() == [1] * len(rows)


def spaces_apart() -> PreTrainedTokenizerFast:
    """A tokenizer in which a space is a token of its own."""
    words = ["<unk>", " ", "a", "gold", "pet", "who", "?"]
    raw = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


@pytest.mark.parametrize(("answer", "key"), [("gold", "gold"), ("a gold pet", "gold"), ("gold pet", "gold pet")])
def test_a_key_behind_a_space_that_is_a_token_is_the_word(answer: str, key: str) -> None:
    item = Item(id="a", group="a", question="who ?", answer=answer, key=key)
    made = tokenise([item], [answer], spaces_apart(), Template(), None)
    words = spaces_apart().convert_ids_to_tokens(made.ids[made.key].tolist())
    assert [word for word in words if word.strip()] == key.split() and words[0] == key.split()[0]


@pytest.mark.parametrize("prompt", ["{image} {question}", "{question} {image}", "look at {image} : {question}"])
def test_a_prompt_says_where_the_picture_stands(root: Path, prompt: str) -> None:
    case = opened(root, prompt=prompt)
    rows, item = case.rows(FORGET), case.items(FORGET)[0]
    text = prompt.replace("{image}", IMAGE).replace("{question}", item.question)
    own = picture_toy.processor()(images=[case.pictures[item.id]], text=[f"{text} {item.answer}"], return_tensors="pt")[
        "input_ids"
    ][0]
    assert rows.ids[0].tolist() == own.tolist()


def test_rows_without_a_picture_and_with_another_one(root: Path) -> None:
    case = opened(root, prompt="{image} {question}")
    items, answers = case.items(FORGET), [item.answer for item in case.items(FORGET)]
    blind = case.rows_of([item.model_copy(update={"image": None}) for item in items], answers)
    assert not blind.extra and not (blind.ids == TOKEN).any()
    grey = {item.id: np.full((7, 30), 128, np.uint8) for item in items}
    other = case.rows_of(items, answers, grey)
    assert torch.equal(other.ids, case.rows(FORGET).ids) and other.extra["pixel_values"].std() == 0
    assert not torch.equal(other.extra["pixel_values"], case.rows(FORGET).extra["pixel_values"])


def test_a_cohort_of_texts_stands_beside_cohorts_of_pictures(root: Path) -> None:
    (root / "general.jsonl").write_text(json.dumps({"id": "g", "question": "who ?", "answer": "anna"}) + "\n")
    toml = (root / "case.toml").read_text().replace("[data]", '[data]\ngeneral = "general.jsonl"')
    (root / "case.toml").write_text(toml)
    case = opened(root)
    assert not case.rows(Texts(cohort="general")).extra and case.rows(FORGET).extra


def test_groups_of_several_pictures_are_counted_as_groups(root: Path) -> None:
    rewrite(root / "forget.jsonl", lambda row: row.update(group=f"pair {int(row['id'].split('-')[1]) // 2}"))
    assert opened(root).replicate is PICTURES


def test_a_text_case_on_a_vision_language_checkpoint_is_one_of_texts(root: Path) -> None:
    for cohort in ("forget", "retain"):
        rewrite(root / f"{cohort}.jsonl", lambda row: row.update(image=None))
    texts = [{**row, "question": f"{row['question']} {row['id']}"} for row in rows_of(root / "forget.jsonl")]
    (root / "forget.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    for role in picture_toy.ROLES:
        (root / role / "processor_config.json").unlink()
    case = opened(root)
    assert case.modality == "text" and not case.rows(FORGET).extra


# ---- chat templates -------------------------------------------------------------------------------------------------
LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% elif part['type'] == 'text' %}{{ part['text'] | trim }}"
    "{% endif %}{% endfor %}{% endif %}{{ '<end_of_turn>\n' }}{% endfor %}{{ '<start_of_turn>model\n' }}"
)
LLAMA = (
    "{% if messages[0]['role'] == 'system' %}{{ '[sys]' + messages[0]['content'] | trim + '[/sys]' }}"
    "{% set messages = messages[1:] %}{% endif %}{% for message in messages %}{{ '[' + message['role'] + ']' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '[/' + message['role'] + ']' }}{% endfor %}"
)
PLAIN = "{% for message in messages %}{{ message['role'] + ' : ' + message['content'] + ' ' }}{% endfor %}"
CHATS = {"llava": LLAVA, "gemma": GEMMA, "llama": LLAMA, "plain": PLAIN}
EXPANDED = f"[{IMAGE * TOKENS}]"


@pytest.mark.parametrize("system", ["", "be short"])
@pytest.mark.parametrize("kind", CHATS)
def test_a_chat_template_is_given_the_picture_in_the_form_that_it_reads(kind: str, system: str) -> None:
    tokenizer = picture_toy.tokenizer()
    tokenizer.chat_template = CHATS[kind]
    template = PictureTemplate(chat=True, system=system, prompt=f"{EXPANDED}{{question}}", marker=IMAGE,
                               expansion=EXPANDED)  # fmt: skip
    text = ChatPrompt(tokenizer, template)(f"{EXPANDED}what color ?")
    assert text.count(EXPANDED) == 1 and text.count("what color ?") == 1 and "'type'" not in text
    assert system in text and text.index(EXPANDED) < text.index("what color ?")


@pytest.mark.parametrize("kind", CHATS)
def test_a_chat_without_a_picture_is_whole_in_every_template(kind: str) -> None:
    tokenizer = picture_toy.tokenizer()
    tokenizer.chat_template = CHATS[kind]
    text = ChatPrompt(tokenizer, Template(chat=True))("what color ?")
    assert text.count("what color ?") == 1 and "'type'" not in text


@pytest.mark.parametrize("held", ["both", "processor", "old file"])
def test_a_chat_of_a_case_is_what_the_processor_makes_of_it(root: Path, held: str) -> None:
    for role in picture_toy.ROLES:
        reader = picture_toy.processor()
        reader.tokenizer.chat_template = PLAIN if held == "processor" else LLAVA if held == "both" else None
        reader.chat_template = None if held == "old file" else LLAVA
        reader.save_pretrained(root / role)
        if held == "old file":
            (root / role / "chat_template.json").write_text(json.dumps({"chat_template": LLAVA}))
    case = opened(root, chat=True, answer=" {answer}")
    item, rows = case.items(FORGET)[0], case.rows(FORGET)
    parts = [{"type": "image"}, {"type": "text", "text": item.question}]
    own = picture_toy.processor()
    own.chat_template = LLAVA
    words = own.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    made = own(images=[case.pictures[item.id]], text=[f"{words} {item.answer}"], return_tensors="pt")["input_ids"][0]
    assert rows.ids[0].tolist() == made.tolist() and rows.ids[0, 0] == 1


# ---- faults -----------------------------------------------------------------------------------------------------
def _processor(root: Path, *roles: str, side: int = picture_toy.SIDE, **settings: Any) -> None:
    for role in roles or picture_toy.ROLES:
        picture_toy.processor(side, **settings).save_pretrained(root / role)


def _image(root: Path, text: str) -> None:
    rewrite(root / "forget.jsonl", lambda row: row.update(question=text))


def _shared(root: Path) -> None:
    Image.fromarray(picture_toy.picture(0, picture_toy.FORGOTTEN)).save(root / "images" / "retain-100.png")


def _no_processor(root: Path) -> None:
    (root / "base" / "processor_config.json").unlink()


def _ids(root: Path) -> None:
    shutil.copy(root / "forget.jsonl", root / "general.jsonl")
    (root / "case.toml").write_text(
        (root / "case.toml").read_text().replace("[data]", '[data]\ngeneral = "general.jsonl"')
    )
    rewrite(root / "general.jsonl", lambda row: row.update(image=None, question=f"{row['question']} not"))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "class token counted": (lambda r: _processor(r, vision_feature_select_strategy="full"),
                            r"writes 5 image tokens for a picture, and the model has 4 states of one \(4 patches, 1 c"),
    "another patch": (lambda r: _processor(r, patch_size=4), "writes 9 image tokens for a picture, and the model has"),
    "another size": (lambda r: _processor(r, side=13),
                     r"makes pictures of \(13, 13\), and the model takes \(12, 12\)"),
    "token in a question": (lambda r: _image(r, "what is <image> ?"),
                            "item 'forget-0-trained': its question holds '<image>'"),
    "shared": (_shared, "forget and retain share 1 image"),
    "no processor": (_no_processor, r"`image` \(line 1\): base reads no images, or came without a processor"),
    "id twice": (_ids, "id 'forget-0-trained' is in .*general.jsonl .general. too, and pictures go by ids"),
    "missing file": (lambda r: (r / "images" / "forget-1.png").unlink(), "line 3: 'images/forget-1.png': No such fi"),
}  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("fault", FAULTS)
def test_a_case_of_pictures_that_cannot_be_audited_is_refused_by_name(root: Path, fault: str) -> None:
    damage, message = FAULTS[fault]
    damage(root)
    with pytest.raises(AuditError, match=message) as caught:
        opened(root)
    assert caught.value.code == 2 and caught.value.do


def test_a_prompt_with_two_pictures_is_refused(root: Path) -> None:
    with pytest.raises(AuditError, match="prompt has {image} 2 times"):
        opened(root, prompt="{image} {image} {question}")


def test_an_image_token_in_a_row_without_a_picture_is_refused(root: Path) -> None:
    case = opened(root)
    items = [item.model_copy(update={"image": None, "question": f"{IMAGE} ?"}) for item in case.items(FORGET)]
    with pytest.raises(AuditError, match="its row has 1 image tokens, and 0 stand for its picture .and 3 more items"):
        case.rows_of(items, [item.answer for item in items])


@pytest.mark.thorough
@pytest.mark.parametrize("role", ["suspect", "reference"])
def test_models_whose_processors_read_pictures_otherwise_are_refused(root: Path, role: str) -> None:
    config = root / role / "processor_config.json"
    loaded = json.loads(config.read_text())
    loaded["image_processor"]["image_mean"] = [0.1, 0.5, 0.5]
    config.write_text(json.dumps(loaded))
    with pytest.raises(AuditError, match=f"{role}: its processor makes other pixels than base's"):
        opened(root)
    loaded["image_processor"]["image_mean"] = [0.5, 0.5, 0.5]
    loaded["vision_feature_select_strategy"] = "full"
    config.write_text(json.dumps(loaded))
    with pytest.raises(AuditError, match=f"{role}: its processor writes a picture with other tokens than base's"):
        opened(root)
    config.write_text((root / "base" / "processor_config.json").read_text() + "\n")
    opened(root)
    config.unlink()
    opened(root)


def test_strings_are_put_into_no_prompts_of_pictures(root: Path) -> None:
    case = opened(root)
    with pytest.raises(AuditError, match="these items ask about pictures"):
        case.insertable(case.items(FORGET))


def test_what_a_processor_does_is_part_of_the_fingerprint(root: Path) -> None:
    before = fingerprint(root / "base").total
    path = root / "base" / "processor_config.json"
    path.write_text(path.read_text().replace("0.5", "0.4"))
    assert fingerprint(root / "base").total != before


def test_one_picture_under_two_groups_of_a_cohort_is_said(root: Path) -> None:
    shutil.copy(root / "images" / "forget-0.png", root / "images" / "forget-1.png")
    assert any("forget: 1 image is there before, in another group" in note for note in opened(root).notes)


@pytest.mark.parametrize(("kind", "states"), [("llava_clip", 9), ("llava_siglip", 9), ("gemma3", 4), ("mllama", 1)])
def test_a_config_says_how_many_states_a_picture_has(kind: str, states: int) -> None:
    settings = picture_settings(toy_vlm.checkpoint(kind))
    assert (settings.token, settings.states) == (toy_vlm.IMAGE_ID, states) and settings.size is not None
    assert not settings.drops_patch


def test_a_tower_without_a_class_token_whose_first_state_is_dropped_is_seen(tmp_path: Path) -> None:
    shutil.copytree(toy_vlm.folder("llava_siglip"), tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["vision_feature_select_strategy"] = "default"
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    settings = picture_settings(resolve(Source(path="m"), tmp_path))
    assert settings.states == 8 and settings.drops_patch


@pytest.mark.sampled
@pytest.mark.parametrize("kind", toy_vlm.KINDS)
def test_every_kind_of_vision_language_model_opens_a_case_of_pictures(kind: str, tmp_path: Path) -> None:
    folders = {role: toy_vlm.folder(kind, seed) for seed, role in enumerate(picture_toy.ROLES)}
    picture_toy.write_case(tmp_path, groups=2, **folders)
    case = open_case(load_case(tmp_path / "case.toml"), tmp_path, tmp_path / "out")
    rows = case.rows(FORGET)
    assert ((rows.ids == toy_vlm.IMAGE_ID).sum(1) == toy_vlm.IMAGE_TOKENS[kind]).all()
    assert set(rows.extra) == set(toy_vlm.INPUTS[kind]) and len(rows) == 2


def test_a_language_model_refuses_pictures_by_their_column(tmp_path: Path) -> None:
    picture_toy.write_case(tmp_path, **{role: toy.folder("llama", n) for n, role in enumerate(picture_toy.ROLES)})
    with pytest.raises(AuditError, match="`image` .line 1.: base reads no images"):
        open_case(load_case(tmp_path / "case.toml"), tmp_path, tmp_path / "out")
