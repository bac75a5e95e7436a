"""What is known of a release put together: roles, prompt, data, each with its reason, and what is left to fill in."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from audit.case.releases.chat_recipe import Open, Recipe, chat_source, recipe
from audit.case.releases.clues import Benchmark, Clues, Named
from audit.case.releases.gguf_metadata import CHAT_TEMPLATE, gguf_files
from audit.case.releases.hub_snapshots import HUB_ID, hub_place
from audit.case.releases.nearby import Surroundings, beside, data_roots, find_data, find_model
from audit.case.releases.pools._pool import Pool
from audit.case.releases.release import CONFIG, Place, Release, bare_name, is_release, read_release, releases_in
from audit.case.tables import read_table
from audit.plugins import discover
from audit.schema import AuditError, Cohort

POOLS: Final = "audit.case.releases.pools"


class Part(NamedTuple):
    """A checkpoint in a role, and why. ``adapter``: the adapter that is put on it."""

    place: Place
    reason: str
    adapter: Place | None = None


class DataPart(NamedTuple):
    """A data file, what it is, and how many rows it has."""

    path: Path
    description: str
    rows: int


class Groups(NamedTuple):
    """What a group is: a column, or so many consecutive rows; and why."""

    column: str
    rows: int | None
    reason: str


class Draft(NamedTuple):
    """A case as far as it is known; of data alone no role is. ``recognised`` says by what, ``left`` what is missing."""

    release: Release
    recognised: tuple[str, ...]
    suspect: Part | None
    base: Part | None
    references: tuple[Part, ...]
    ancestor: Part | None
    prompting: Recipe
    data: Mapping[Cohort, DataPart]
    groups: Groups | None
    benchmark: Benchmark | None
    edited_on_all: str
    published: Path | None
    left: tuple[Open, ...]
    candidates: Mapping[str, tuple[Named, ...]]

    @property
    def of_hub(self) -> bool:
        """Is any of its models one of the hub, whose weights may have to be fetched?"""
        parts = (self.suspect, self.base, self.ancestor, *self.references)
        return any(part.place.hub for part in parts if part is not None)


@cache
def pools() -> tuple[Pool, ...]:
    """Every parser of releases, in the order in which they are heard."""
    return tuple(sorted(_made(), key=lambda pool: pool.order))


def _made() -> Iterable[Pool]:
    return (cls() for cls in discover(POOLS, Pool).values())  # pyright: ignore[reportAbstractUsage]


def benchmark_in(given: Path) -> tuple[Benchmark, Path] | None:
    """The benchmark whose files lie in a folder, or beside a file of it that is named, and that folder."""
    folder, file = (given, "") if given.is_dir() else (given.parent, given.name)
    if not given.exists() or is_release(folder):
        return None
    found = (pool.data(folder, file) for pool in pools())
    return next(((benchmark, folder) for benchmark in found if benchmark is not None), None)


def _of_data(benchmark: Benchmark, folder: Path) -> Draft:
    """The case of a folder of data: every role is left to be filled in."""
    around = Surroundings(None, (folder,))
    files, prompting = _files(benchmark, around, (folder,)), recipe("", benchmark.asked)
    roles = Open("roles.suspect", "the model that is said to have forgotten")
    recognised = f"{benchmark.name}, by its files in {folder}{f' ({benchmark.also})' if benchmark.also else ''}"
    return Draft(
        release=Release(folder.name), recognised=(recognised,), suspect=None, base=None, references=(), ancestor=None,
        prompting=prompting, data=files, groups=_groups(benchmark, files), benchmark=benchmark, edited_on_all="",
        published=None, left=(*_left(None, {"base": ()}, benchmark, files), roles, *prompting.left),
        candidates={"base": (), "reference": (), "ancestor": ()},
    )  # fmt: skip


def look(given: str, online: bool) -> Release:
    """The release in a folder, of a file in one, or of a hub id (owner/name or owner/name@commit). AuditError (code 2)
    if there is none."""
    path = Path(os.path.expanduser(given))
    if os.path.exists(path):
        folder = (path if path.is_dir() else path.parent).resolve()
        return _read(given, Place(folder, file="" if path.is_dir() else path.name))
    name, _, revision = given.partition("@")
    if not HUB_ID.fullmatch(name):
        raise AuditError(f"{given}: no such folder, and no hub id (owner/name)", "correct the name")
    place = hub_place(name, online, revision)
    if place is None:
        raise AuditError(
            f"{given}: no such folder ({path.absolute()}), and as a hub id not "
            + ("on the hub" if online else "in the local cache"),
            "check the name and your access to it"
            if online
            else "run again with --online to look on the hub, or give a local folder",
        )
    return _read(given, place)


def _read(given: str, place: Place) -> Release:
    """The release at a place. AuditError (code 2) if none lies there; it names those that lie below."""
    if is_release(place.folder):
        _check_one_file(given, place)
        return read_release(place)
    if below := list(releases_in(place.folder)):
        listed = ", ".join(below[:8]) + (", ..." if len(below) > 8 else "")
        raise AuditError(f"{given}: holds several releases ({listed})", f"name one of them, such as {given}/{below[0]}")
    raise _unrecognised(f"{given}: neither a model nor an adapter lies there")


def draft_of(given: str, data: Sequence[Path] = (), online: bool = False, base: str = "") -> Draft:
    """The case of a release, as far as it is known; nothing is written and no weights are read.

    ``given`` may be a folder with the files of a benchmark and no model, or one of them. ``data`` are folders in which
    the benchmark's files may lie too; where no release says which benchmark, these files say it. ``base``: the model
    that knew, where it is named too, so that nothing need be recognised. AuditError (code 2): nothing is recognised.
    """
    if not base and (found := benchmark_in(Path(os.path.expanduser(given)))) is not None:
        return _of_data(*found)
    release, knew = look(given, online), None if not base else _knew(look(base, online))
    folder = None if release.place is None or release.place.hub else release.place.folder
    around = Surroundings(folder, tuple(data), online)
    kin, original = _ancestry(release, around)
    release = release._replace(kin=tuple(dict.fromkeys((*release.kin, *kin))))
    clues = [recognised for pool in pools() if (recognised := pool.clues(release)).recognised]
    if not clues and knew is None:
        raise _unrecognised(f"{given}: nothing in it says what it was made of")
    candidates = {
        "base": tuple(name for clue in (*original, *clues) for name in clue.base),
        "reference": tuple(name for clue in clues for name in clue.null),
        "ancestor": tuple(name for clue in clues for name in clue.ancestor),
    }
    return _assembled(release, clues, (knew or _first(candidates["base"], around), candidates), around)


def _knew(release: Release) -> Part:
    """A model that was named as base. AuditError (code 2) for an adapter."""
    assert release.place is not None, "a release that was looked at lies somewhere"
    if release.is_adapter:
        raise AuditError(f"{release.name}: base is an adapter", "name the whole model that knew, then the suspect")
    return Part(release.place, "the first that `--from` named")


def _ancestry(release: Release, around: Surroundings) -> tuple[tuple[str, ...], list[Clues]]:
    """The names of those it came from, and, of a copy in fewer bits, what its original says of itself."""
    kin: list[str] = []
    original: list[Clues] = []
    for clue in [pool.clues(release) for pool in pools()]:
        kin += [name.name for name in (*clue.base, *clue.copy_of)]
        for name in clue.copy_of:
            place = find_model(name.name, around)
            float_release = Release(name.name) if place is None else read_release(place)
            recognised = [pool.clues(float_release) for pool in pools()]
            reason = f"{{}}, of {bare_name(name.name)}, of which this is a copy in fewer bits"
            original += [
                each._replace(base=tuple(base._replace(reason=reason.format(base.reason)) for base in each.base))
                for each in recognised
            ]
            kin += [base.name for each in recognised for base in each.base]
    return tuple(kin), original


def _assembled(
    release: Release, clues: Sequence[Clues], known: tuple[Part | None, Mapping[str, tuple[Named, ...]]],
    around: Surroundings,
) -> Draft:  # fmt: skip
    base, candidates = known
    references = _references(candidates["reference"], [floor for clue in clues for floor in clue.floors], around)
    benchmark = next((clue.benchmark for clue in clues if clue.benchmark is not None), None)
    by_files = next((found for folder in around.data if (found := benchmark_in(folder)) is not None), None)
    if benchmark is None and by_files is not None:
        benchmark, around = by_files[0], around._replace(data=(by_files[1],))
    asked = next((clue.prompting for clue in clues if clue.prompting is not None), benchmark and benchmark.asked)
    prompting = recipe(_chat_source(base, release), asked)
    files = {} if benchmark is None else _files(benchmark, around, around.data if by_files else ())
    taught = benchmark is not None and benchmark.taught
    ancestor = _first(candidates["ancestor"], around) if taught and not references else None
    return Draft(
        release=release,
        recognised=tuple(dict.fromkeys(clue.recognised for clue in clues)) or ("a pair of checkpoints",),
        suspect=_suspect(release, base), base=base, references=references, ancestor=ancestor, prompting=prompting,
        data=files, groups=_groups(benchmark, files), benchmark=benchmark,
        edited_on_all=next((clue.edited_on_all for clue in clues if clue.edited_on_all), ""),
        published=_published(release), candidates=candidates,
        left=(*_left(base, candidates, benchmark, files), *_words(base), *prompting.left),
    )  # fmt: skip


def _check_one_file(given: str, place: Place) -> None:
    """AuditError (code 2) where the folder holds the model several times, in different bits, and none is named."""
    files = gguf_files(place.folder)
    if len(files) > 1 and not place.file and not (place.folder / CONFIG).is_file():
        names = ", ".join(file.name for file in files)
        raise AuditError(f"{given}: holds several .gguf files ({names})", f"name one of them: {given}/{files[0].name}")


# ---- roles ------------------------------------------------------------------------------------------------------
def _first(candidates: Iterable[Named], around: Surroundings) -> Part | None:
    """The first of these models that is found."""
    for name in candidates:
        if (place := find_model(name.name, around)) is not None:
            return Part(place, name.reason)
    return None


def _references(candidates: Sequence[Named], floors: Sequence[str], around: Surroundings) -> tuple[Part, ...]:
    """The retrained model that is the null, and more of its kind that lie beside the release."""
    null = _first(candidates, around)
    if null is None:
        return ()
    more = [place for pattern in floors for place in beside(pattern, around) if place != null.place]
    return (null, *(Part(place, "retrained likewise, by its name") for place in dict.fromkeys(more)))


def _suspect(release: Release, base: Part | None) -> Part:
    assert release.place is not None, "a release that was looked at lies somewhere"
    if not release.is_adapter:
        return Part(release.place, "what `--from` named")
    on = release.place if base is None else base.place
    return Part(on, "base, with the adapter that `--from` named", release.place)


# ---- the rest ---------------------------------------------------------------------------------------------------
def _chat_source(base: Part | None, release: Release) -> str:
    """The chat template of the tokenizer that is read: base's own, else that of the release."""
    for place in (None if base is None else base.place, release.place):
        if place is not None and (source := chat_source(place.folder)):
            return source
    return release.gguf.get(CHAT_TEMPLATE, "")


def _files(benchmark: Benchmark, around: Surroundings, first: Sequence[Path] = ()) -> dict[Cohort, DataPart]:
    roots = (*first, *data_roots(benchmark.data, around))
    files: dict[Cohort, DataPart] = {}
    for wanted in benchmark.files:
        path = find_data(wanted.names, roots)
        if path is not None:
            files[wanted.cohort] = DataPart(path, wanted.description, len(read_table(path)))
    return files


def _groups(benchmark: Benchmark | None, files: Mapping[Cohort, DataPart]) -> Groups | None:
    if benchmark is None:
        return None
    grouped = [part.path for cohort, part in files.items() if cohort not in ("general", "forms")]
    columns = [set(rows[0].values) if (rows := read_table(path)) else set[str]() for path in grouped]
    for name in benchmark.groups:
        if columns and all(name in have for have in columns):
            return Groups(name, None, f"the files have a column `{name}`")
    return Groups("", benchmark.group_rows, benchmark.group_why)


def _published(release: Release) -> Path | None:
    """An evaluation file of open-unlearning's kind beside the weights."""
    if release.place is None:
        return None
    folder = release.place.folder
    for path in sorted((*folder.glob("*_EVAL.json"), *folder.glob("eval*/*_EVAL.json"))):
        try:
            loaded: object = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(loaded, dict) and any(isinstance(v, dict) and "agg_value" in v for v in loaded.values()):
            return path
    return None


def _left(
    base: Part | None, candidates: Mapping[str, tuple[Named, ...]], benchmark: Benchmark | None,
    files: Mapping[Cohort, DataPart],
) -> Iterable[Open]:  # fmt: skip
    """What an audit needs and is not known, and what would make it stronger."""
    if base is None:
        texts = ", ".join(name.name for name in candidates["base"])
        description = "the model that knew"
        yield Open(
            "roles.base",
            f"{description}: {texts} is named and was not found here" if texts else f"{description}: not named",
        )
    for cohort in ("forget", "retain"):
        if cohort not in files:
            source = "" if benchmark is None else f" of {benchmark.name} ({benchmark.data.repository})"
            yield Open(f"data.{cohort}", f"the {cohort} file{source}: not found; say where it lies with --data DIR")


def _words(base: Part | None) -> Iterable[Open]:
    """A base that brings no tokenizer, as MUSE's models do not: nothing can be asked of it."""
    if base is not None and (base.place.folder / CONFIG).is_file() and not _has_tokenizer(base.place.folder):
        yield Open("tokenizer", "base's folder has no tokenizer: put the files of the one that it was trained with "
                   "beside its weights, such as those that the suspect was saved with")  # fmt: skip


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt")) or any(
        folder.glob("*.model*")
    )


def _unrecognised(description: str) -> AuditError:
    looked = "; ".join(pool.looks_for for pool in pools())
    do = f"looked for: {looked}. Name a folder with one of these, or fill in a case yourself: `residua init` writes one"
    return AuditError(description, do)
