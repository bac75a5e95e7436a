"""Train sparse autoencoders of a model's states, and look at one."""

from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import flags
from audit.cli.answer import Answer, JsonValue

if TYPE_CHECKING:
    from audit.bench import Bench
    from audit.case import OpenCase
    from audit.cli.progress import Progress
    from audit.schema import Interval, Site
    from saes import DictionaryView, StoredDictionary, TopItem, TrainingProgress

ORDER = 75
ARCHITECTURES = ("topk", "batchtopk", "jumprelu")
SHOWN, ITEMS = 10, 5
_VISION, _PATCHES = "vision.", 20
_LEFT_FACTOR = 1.25
"""How far the rate of the rows to come may be from that of the rows so far."""


def add_arguments(parser: ArgumentParser) -> None:
    """Two actions, each with its own flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    spoken = ArgumentParser(add_help=False, argument_default=SUPPRESS)  # what was said before the action holds
    flags.add_output(spoken)
    train = actions.add_parser("train", parents=[spoken], help="train a dictionary of base's states at each site")
    train.add_argument("case", nargs="?", default="case.toml", help="the case file (default: case.toml)")
    train.add_argument("-o", "--out", metavar="DIR", required=True, help="where the dictionaries go, a folder a site")
    roles = ("base", "suspect", "reference")
    train.add_argument("--role", choices=roles, default="base", help="whose states are learnt from (default: base)")
    train.add_argument("--site", required=True, metavar="BLOCK[,BLOCK...]", help="after which blocks, counted "
                       "from 0; of a vision tower before a language model vision.BLOCK")  # fmt: skip
    train.add_argument("--architecture", choices=ARCHITECTURES, default="topk", help="(default: topk)")
    train.add_argument("--width", type=flags.count, required=True, metavar="N", help="how many features")
    train.add_argument("--k", type=flags.count, required=True, metavar="K", help="active features a row; jumprelu "
                       "aims at it")  # fmt: skip
    train.add_argument("--rows", type=flags.count, default=1_000_000, metavar="N", help="how many rows are seen, again "
                       "where there are fewer (default: 1000000)")  # fmt: skip
    train.add_argument("--draws", type=flags.count, default=1, metavar="N", help="dictionaries a site, from first "
                       "weights of their own (default: 1)")  # fmt: skip
    train.add_argument("--patches", type=flags.count, metavar="N", help="of images: N places of each drawn by the seed "
                       "(patches, or positions of a map), not the one state that the head reads")  # fmt: skip
    train.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and order (default: 0)")
    flags.add_settings(train)
    show = actions.add_parser("show", parents=[spoken], help="say how well dictionaries fit, and what their features "
                              "fire at")  # fmt: skip
    show.add_argument("folder", metavar="DIR", help="a dictionary, or a folder of several")
    show.add_argument("case", nargs="?", metavar="CASE", help="the case on which to look; without it, what "
                      "was measured when it was trained")  # fmt: skip
    show.add_argument("-o", "--out", metavar="DIR", help="write what is seen on the case for the dashboard, a folder a "
                      "dictionary; where they lie themselves is a good place")  # fmt: skip
    show.add_argument("--match", metavar="DIR", help="another dictionary, such as one of the suspect's states: which "
                      "features are the same")  # fmt: skip
    show.add_argument("--features", type=flags.count, default=SHOWN, metavar="N", help="how many (default: 10)")
    show.add_argument("--unmask", action="store_true", help="show forget items in clear")
    flags.add_settings(show)


def act(args: Namespace) -> Answer:
    """Train, or show."""
    return _train(args) if args.action == "train" else _show(args)


# ---- train ------------------------------------------------------------------------------------------------------
def _train(args: Namespace) -> Answer:
    from pydantic import ValidationError

    from audit.cli import dictionary_tables as tables
    from audit.planning import make_bench
    from audit.schema import AuditError
    from saes import PatchSample, TrainingSettings, activations_of, texts_of_case, train

    try:
        settings = TrainingSettings(
            architecture=args.architecture,
            features=args.width,
            k=args.k,
            rows=args.rows,
            seed=args.seed,
            draws=args.draws,
        )
    except ValidationError as error:
        raise AuditError(str(error.errors()[0]["msg"]).removeprefix("Value error, "), "correct the flags") from None
    with flags.progress(args) as progress:
        progress.say(f"opening {args.case}")
        case = _opened(args, Path(args.out))
        model, texts = case.checkpoint(args.role), texts_of_case(case, case.checkpoint("base"))
        bench = make_bench(flags.settings(args), [case.checkpoint("base"), model])
        sites = _sites(args.site, case, bench)
        training, held_out = texts.split(args.seed)
        patches = args.patches or (_PATCHES if sites[0].tower is not None else None)
        sample = None if patches is None else PatchSample(count=patches, seed=args.seed)
        source = activations_of(bench, model, training, sites, sample)
        progress.say(f"{source.rows} rows of {len(training.items)} items at {', '.join(source.names)}")
        stored = train(
            source, activations_of(bench, model, held_out, sites, sample), settings, Path(args.out), source.sites,
            lambda step: _watch(step, progress),
        )  # fmt: skip
    document: dict[str, JsonValue] = {"out": args.out, "dictionaries": [tables.document(each) for each in stored]}
    hint = f"look at them: residua sae show {args.out} {args.case} -o {args.out}"
    return Answer(document, (tables.overview(stored), f"written to {args.out}", hint))


def _opened(args: Namespace, out: Path) -> "OpenCase":
    from audit.case import CaseFile, open_case

    case_file = CaseFile.read(Path(args.case))
    return open_case(case_file.case, case_file.root, out, online=args.online)


def _sites(text: str, case: "OpenCase", bench: "Bench") -> "list[Site]":
    """After the named blocks: of the tower that the head reads, or of a vision tower before it. AuditError (code 2) for
    what is no block of base, and for blocks of both."""
    from audit.planning import parse_count
    from audit.probing import n_blocks
    from audit.schema import AuditError, Site

    parts = [part.strip() for part in text.split(",")]
    of_vision = {part.startswith(_VISION) for part in parts}
    if len(of_vision) > 1:
        raise AuditError(f"--site {text}: blocks of two towers, whose rows are not the same", "train them one by one")
    tower = "vision" if True in of_vision else None
    blocks = n_blocks(case) if tower is None else bench.open(case.base).tower(tower).n_blocks
    for number in (numbers := [part.removeprefix(_VISION) for part in parts]):
        if (block := parse_count(number)) is None or block >= blocks:
            do = f"name blocks from 0 to {blocks - 1}, such as 0,1"
            raise AuditError(f"--site {number[:99]}: no block of base", do)
    return [Site(part="resid_out", block=int(number), tower=tower) for number in numbers]


def _watch(step: "TrainingProgress", progress: "Progress") -> None:
    from audit.planning import Step

    each = (f"{name}: FVE {g.fve:.3f}, L0 {g.l0:.1f}, {g.dead} dead" for name, g in step.sites.items())
    detail = f"{'; '.join(each)}; {step.rows_per_s:,.0f} rows/s"
    progress.watch(Step("training", detail, step.done, step.total, step.kept_on_disk, _left(step)))


def _left(step: "TrainingProgress") -> "Interval | None":
    from audit.schema import Interval

    return None if not step.left_s else Interval(lo=step.left_s / _LEFT_FACTOR, hi=step.left_s * _LEFT_FACTOR)


# ---- show -------------------------------------------------------------------------------------------------------
def _show(args: Namespace) -> Answer:
    from audit.cli import dictionary_tables as tables
    from audit.schema import AuditError
    from saes import dictionaries_in, match_dictionaries, read_dictionary

    if args.out is not None and args.case is None:
        raise AuditError("-o writes what is seen on a case, and none is named", "name the case, or leave -o out")
    stored = [read_dictionary(folder) for folder in dictionaries_in(Path(args.folder))]
    other = None if args.match is None else read_dictionary(_only(args.match))
    matches = [None if other is None else match_dictionaries(each, other) for each in stored]
    pairs = [tables.matched(each, match) for each, match in zip(stored, matches, strict=True) if match is not None]
    paired = tuple(part for parts in pairs for part in parts)
    if args.case is None:
        documents: list[JsonValue] = [tables.document(*each) for each in zip(stored, matches, strict=True)]
        hint = "name a case to see at which items features fire"
        return Answer({"dictionaries": documents}, (tables.overview(stored), *paired, hint))
    views = _views(args, stored)
    documents = [tables.viewed(*each, args.features) for each in zip(stored, views, matches, strict=True)]
    parts = tuple(part for view in views for part in tables.view(view, args.features))
    return Answer({"case": args.case, "dictionaries": documents}, (*parts, *paired, *_written(args, stored, views)))


def _only(folder: str) -> Path:
    """The one dictionary of a folder. AuditError (code 2) for several."""
    from audit.schema import AuditError
    from saes import dictionaries_in

    first, *others = dictionaries_in(Path(folder))
    if others:
        raise AuditError(f"--match {folder}: {1 + len(others)} dictionaries", "name the folder of one")
    return first


def _views(args: Namespace, stored: "Sequence[StoredDictionary]") -> "list[DictionaryView]":
    """The dictionaries on base, suspect and every reference."""
    from audit.planning import make_bench
    from saes import CaseModels, Shown, texts_of_case, view_dictionary

    with flags.progress(args) as progress:
        progress.say(f"opening {args.case}")
        case = _opened(args, Path(args.folder))
        by_name = {"base": case.checkpoint("base"), "suspect": case.checkpoint("suspect")}
        for n in range(len(case.case.roles.references)):
            by_name[f"reference {n + 1}" if n else "reference"] = case.checkpoint("reference", n)
        texts, bench = texts_of_case(case, by_name["base"]), make_bench(flags.settings(args), by_name.values())
        models = CaseModels(case.case.name, bench, texts, by_name)
        shown = Shown(args.features, ITEMS, _quoting(Path(args.folder), args.unmask))
        views: list[DictionaryView] = []
        for each in stored:
            progress.say(f"reading {each.folder.name}")
            views.append(view_dictionary(each, models, shown))
    return views


def _quoting(folder: Path, unmask: bool) -> "Callable[[TopItem], tuple[str, bool]]":
    """How an item is shown: of the forget set by its mark, unless it is asked for."""
    from audit.runs import Mask, key_of
    from audit.wording import CELL, visible

    mask = None if unmask else Mask(key_of(folder))

    def quote(top: "TopItem") -> tuple[str, bool]:
        # an image has no question: it is called by its id and its class
        text = f"{top.item.question} {top.item.answer}" if top.item.question else f"{top.item.id}: {top.item.answer}"
        masked = mask is not None and top.cohort == "forget"
        return (str(mask(text)), True) if mask is not None and masked else (visible(text, CELL), False)

    return quote


def _written(
    args: Namespace, stored: "Sequence[StoredDictionary]", views: "Sequence[DictionaryView]"
) -> tuple[str, ...]:
    """Put what was seen where the dashboard reads it, if that is asked for."""
    from audit.storage import write_atomic
    from saes import VIEW

    if args.out is None:
        return ()
    for each, view in zip(stored, views, strict=True):
        write_atomic(Path(args.out) / each.folder.name / VIEW, (view.model_dump_json(indent=1) + "\n").encode())
    return (f"written to {args.out}; look at it: residua dashboard {args.out}",)
