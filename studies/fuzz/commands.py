"""What is said to ``residua``: finished runs that were damaged, releases, options, places and the environment."""

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from studies.fuzz.documents import damage_document
from studies.fuzz.mutations import Kind, Rng, damage_bytes, replace_file
from studies.fuzz.world import COHORTS, DONE, ROLES

Words = Sequence[str]


# ---- a finished run -------------------------------------------------------------------------------------------------
def _damage_run(rng: Rng, root: Path) -> None:
    """One file of a finished run is another."""
    files = sorted(path for path in (root / DONE).rglob("*") if path.is_file())
    likely = [path for path in files if path.name in ("report.json", "plan.json", "events.jsonl", "custody.jsonl")]
    path = rng.choice((*files, *likely))
    documents = path.suffix == ".json"
    rng.choice((damage_bytes, replace_file, *(damage_document,) * (3 * documents)))(rng, path)
    if rng.random() < 0.2:
        (root / DONE / "manifest.sha256").unlink(missing_ok=True)


def _look(rng: Rng, _root: Path) -> Words:
    drawn = (
        ("verify", DONE), ("report", DONE), ("report", DONE, "--no-verify"), ("report", DONE, "--no-verify",
         "--unmask"),
        ("report", DONE, "--no-verify", "-o", "shown.html"), ("report", DONE, "--no-verify", "-o", "shown.html",
        "--interactive"), ("report", DONE, "--no-verify", "-o", "all"), ("compare", DONE, DONE),
        ("report", DONE, "--no-verify", "-o", "shown.model-index.yml"), ("compare", DONE, DONE, "--no-verify"),
        ("report", f"{DONE}/report.json", "--no-verify"), ("verify", f"{DONE}/report.json"),
        ("verify", f"{DONE}/report.html"), ("report", DONE, "--no-verify", "--baseline", DONE, "--fail-on", "any"),
        ("run", "-o", DONE), ("run", "-o", DONE), ("plan", "-o", DONE), ("verify", DONE, "--log"),
        ("report", DONE, "--no-verify", "-o", "shown_EVAL.json"), ("report", DONE, "--no-verify", "-o", "shown.xml"),
    )  # fmt: skip
    return (*rng.choice(drawn), *rng.choice(((), ("--json",))))


# ---- releases and folders -------------------------------------------------------------------------------------------
def _damage_release(rng: Rng, root: Path) -> None:
    """Something in a role's folder is another, or a card and settings lie beside."""
    folder = root / rng.choice(ROLES)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    path = rng.choice(files)
    if rng.random() < 0.3:
        texts = (
            b"---\nbase_model: [\n---\n", b"---\nbase_model: 7\n---\n", b"---\n- a\n---\n", b"\xff\xfe", b"---",
            b"---\nbase_model: ../base\ndatasets: {a: b}\n---\n", b"---\na: &a [*a]\n---\n", b"---\n? [a]\n: b\n---\n",
            b"---\nbase_model: !!python/name:os.getpid\n---\n", b"---\nbase_model: owner/name\ndatasets: TOFU\n---\n",
            b"---\ndate: 2024-99-99\n---\n", b"# \x1b[31m\n", b"", b"---\nbase_model: '\\0'\n---\n", b"x" * 10**6,
        )  # fmt: skip
        name = rng.choice(("README.md", "README.md", "chat_template.jinja", "trainer_state.json", "edit.json"))
        (folder / name).write_bytes(rng.choice(texts))
    else:
        documents = path.suffix == ".json"
        rng.choice((damage_bytes, replace_file, *(damage_document,) * (2 * documents)))(rng, path)


def _name_release(rng: Rng, root: Path) -> Words:
    role = rng.choice(ROLES)
    places = (role, f"./{role}/", str(root / role), f"{role}/model.safetensors", f"{role}/config.json", "forget.jsonl",
              "case.toml", ".", "", "owner/name", "owner/name@main", "\udc80", "x" * 300, "a/b/c", "~nobody",
              "/proc/self",
              f"{role}@{'0' * 40}", "\x1b[31m", "hf://x", "https://localhost/x", "owner/name@", "-", "..",
              DONE)  # fmt: skip
    place = rng.choice((*(role,) * 20, *places))
    verb = rng.choice((("init", "new.toml", "--from", place), ("init", "new.toml", "--from", place, "--data", "."),
                       ("init", "new.toml", "--from", place, "--data", place), ("fingerprint", place)))  # fmt: skip
    return (*verb, *rng.choice(((), ("--json",))))


# ---- options --------------------------------------------------------------------------------------------------------
_NOT_TRIED: Final = frozenset({"demo", "calibrate", "dashboard", "sae", "forecast", "sweep"})
"""Commands that train for minutes, start processes or wait for a browser, whatever is said to them."""
_TEXTS: Final = (
    "", " ", "0", "-1", "1", "1.5", "nan", "inf", "-inf", "1e400", "9" * 400, "9" * 5000, "1" + "0" * 30, "0.5", "x",
    "\u0663", "\u00b2", "\udc80", "\x1b[31m", "\u202e", "a=b", "=", "0=1G", "0=1G,cpu=x", "cpu=" + "9" * 400, ",", "1G",
    "10M", "1K", "99999999T", "-5G", "15m", "2h", "0s", "1e9h", "9" * 400 + "h", ".", "..", "/dev/null", "/dev/zero",
    "~nobody", "x" * 300, "x/" * 3000, "case.toml", "case.toml/x", "forget.jsonl", "base", "suspect/config.json", "{}",
    "[]", "any", "lr=", "lr=nan", "lr=-1", "p=0", "p=2", "p=x", "finding=", "finding=x", "any,any", "auto", "cpu",
    "cuda:99",
    "meta", "mps", "cpu:7", "none", DONE, f"{DONE}/report.json", "1/2", "0/0", "5/2", "1/", "seed=1", "--", "-o", "\n",
)  # fmt: skip


@cache
def options() -> tuple[tuple[str, str], ...]:
    """Verb and option, of all options that take a value and that ask nobody outside."""
    from audit.cli import build_parser

    [known] = [action.choices for action in build_parser()._actions if action.dest == "verb"]
    parsers: dict[str, Any] = dict(known or {})
    return tuple(
        (verb, action.option_strings[-1])
        for verb, parser in sorted(parsers.items()) if verb not in _NOT_TRIED
        for action in parser._actions
        if action.option_strings and action.nargs != 0
    )  # fmt: skip


_NEEDED: Final[dict[str, Words]] = {
    "report": (DONE,), "verify": (DONE,), "compare": (DONE, DONE), "sign": (DONE,), "fingerprint": ("base",),
    "init": ("new.toml",), "trigger": ("--text", "please"), "edit": ("--edit", "task_arithmetic"),
    "run": ("--dry-run",),
}  # fmt: skip


def _option(rng: Rng, _root: Path) -> Words:
    verb, option = rng.choice(options())
    needed = list(_NEEDED.get(verb, ()))
    if option == "--text":
        needed = []
    return (verb, *needed, f"{option}={rng.choice(_TEXTS)}" if option.startswith("--") else option, *(
        () if option.startswith("--") else (rng.choice(_TEXTS),)))  # fmt: skip


def _argument(rng: Rng, _root: Path) -> Words:
    verb = rng.choice(("run", "plan", "report", "verify", "compare", "fingerprint", "init", "sign", "sweep", "trigger",
                       "edit", "forecast", "cache", "probes", "nothing", "", "\x1b[31m"))  # fmt: skip
    return (verb, *(rng.choice(_TEXTS) for _ in range(rng.choice((0, 1, 1, 2, 3)))))


# ---- places and the environment -------------------------------------------------------------------------------------
def _place(rng: Rng, root: Path) -> Words:
    """Where results go."""
    (root / "loop").symlink_to("loop")
    (root / "file").write_text("x")
    (root / "filled").mkdir()
    (root / "filled" / "report.json").write_text(rng.choice(("", "{}", "[]", "null")))
    (root / "odd").mkdir()
    replaced = (
        root / "odd" / rng.choice(("units", "tables", "plan.json", "events.jsonl", "custody.jsonl", "report.json"))
    )
    rng.choice((replaced.mkdir, lambda: os.mkfifo(replaced), lambda: replaced.symlink_to("loop"), replaced.touch))()
    drawn = (
        "file", "file/x", "loop", "loop/x", "filled", "odd", "odd", "odd", ".", "..", "base", "base/out",
        "/dev/null", "/proc",
        "/proc/x", "/sys/x", "x" * 300, "y/" * 3000, "\x1b[31m", "\udc80", "a\nb", "-", "~nobody/x", "new/\u202e",
        " ", DONE,
        f"{DONE}/units", "case.toml", "forget.jsonl", "'; x", "$(x)", "<b>", "a" * 200 + "/" + "b" * 200, "\u00e9",
        "new",
    )  # fmt: skip
    out = rng.choice(drawn)
    verb = rng.choice((("run",), ("run",), ("run", "--force-new"), ("plan",), ("report", DONE), ("init",)))
    return (*verb, out) if verb[0] == "init" else (*verb, f"-o{out}")


_VARIABLES: Final = (
    "RESIDUA_CACHE", "RESIDUA_CACHE_LIMIT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES", "COLUMNS",
    "TERM",
    "NO_COLOR", "HF_HOME", "HOME", "XDG_CACHE_HOME", "LANG", "TZ", "SOURCE_DATE_EPOCH", "OMP_NUM_THREADS", "USER",
)  # fmt: skip


def _environment(rng: Rng, _root: Path) -> None:
    """One variable of the environment is another. Whoever calls puts the environment back."""
    os.environ[rng.choice(_VARIABLES)] = rng.choice(_TEXTS)


def _usual(rng: Rng, _root: Path) -> Words:
    return rng.choice((("run",), ("plan",), ("run", "-o", DONE), ("verify", DONE), ("report", DONE), ("cache",),
                       ("cache", "--prune", "1K"), ("probes",), ("compare", DONE, DONE), ("init",
                       "new.toml")))  # fmt: skip


def _unread(rng: Rng, root: Path) -> None:
    """A file or folder that only its owner may not read."""
    path = root / rng.choice((*(f"{name}.jsonl" for name in COHORTS), "case.toml", *ROLES, DONE))
    path.chmod(0)


def _nothing(_rng: Rng, _root: Path) -> None:
    """The copy stays as it is."""


_SOUND: Final = "what is shown is sound, or was asked for as it is found (--no-verify)"
COMMANDS: Final[tuple[tuple[str, Callable[[Rng, Path], None], Callable[[Rng, Path], Words], str], ...]] = (
    ("a damaged run", _damage_run, _look, _SOUND), ("a damaged run, again", _damage_run, _look, _SOUND),
    ("a release", _damage_release, _name_release, "a draft says what it found, a fingerprint reads weights alone"),
    ("an option", _nothing, _option, "a value that the option takes"),
    ("arguments", _nothing, _argument, "a value that the argument takes"),
    ("a place for results", _nothing, _place, "a new place, or one that may be written"),
    ("the environment", _environment, _usual, "a variable that is not read, or a value that it takes"),
    ("not readable", _unread, _usual, "who runs it may read everything, or it is not read"),
)  # fmt: skip
COMMAND_KINDS: Final = tuple(Kind("command", name, act, harmless, command) for name, act, command, harmless in COMMANDS)
