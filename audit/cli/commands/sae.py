"""Train sparse autoencoders of a model's states, and look at one."""

from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from audit.cli import flags
from audit.cli.answer import Answer, JsonValue

if TYPE_CHECKING:
    from rich.table import Table

    from audit.bench import Bench
    from audit.case import OpenCase
    from audit.cli.progress import Progress
    from audit.schema import Interval, Site
    from saes import CaseTexts, StoredDictionary, TopItem, TrainingProgress, Validity

ORDER = 75
ARCHITECTURES = ("topk", "batchtopk", "jumprelu")
SHOWN, TEXTS = 10, 3
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
    train.add_argument("--site", required=True, metavar="BLOCK[,BLOCK...]", help="after which blocks, counted from 0")
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
    show.add_argument("--features", type=flags.count, default=SHOWN, metavar="N", help="how many (default: 10)")
    show.add_argument("--unmask", action="store_true", help="show forget texts in clear")
    flags.add_settings(show)


def act(args: Namespace) -> Answer:
    """Train, or show."""
    return _train(args) if args.action == "train" else _show(args)


# ---- train ------------------------------------------------------------------------------------------------------
def _train(args: Namespace) -> Answer:
    from pydantic import ValidationError

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
        sites, base = _sites(args.site, case), case.checkpoint("base")
        bench, texts = make_bench(flags.settings(args)), texts_of_case(case, base)
        training, held_out = texts.split(args.seed)
        sample = None if args.patches is None else PatchSample(count=args.patches, seed=args.seed)
        source = activations_of(bench, base, training, sites, sample)
        progress.say(f"{source.rows} rows of {len(training.items)} items at {', '.join(source.names)}")
        stored = train(
            source, activations_of(bench, base, held_out, sites, sample), settings, Path(args.out), source.sites,
            lambda step: _watch(step, progress),
        )  # fmt: skip
    document: dict[str, JsonValue] = {"out": args.out, "dictionaries": [_document(each) for each in stored]}
    return Answer(document, (_table(stored), f"written to {args.out}"))


def _opened(args: Namespace, out: Path) -> "OpenCase":
    from audit.case import CaseFile, open_case

    case_file = CaseFile.read(Path(args.case))
    return open_case(case_file.case, case_file.root, out, online=args.online)


def _sites(text: str, case: "OpenCase") -> "list[Site]":
    """After the named blocks. AuditError (code 2) for what is no block of base."""
    from audit.probing import n_blocks
    from audit.schema import AuditError, Site

    blocks = n_blocks(case)
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isascii() or not part.isdigit() or int(part) >= blocks:
            raise AuditError(f"--site {part}: no block of base", f"name blocks from 0 to {blocks - 1}, such as 0,1")
    return [Site(part="resid_out", block=int(part)) for part in parts]


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
    from audit.planning import make_bench
    from saes import dictionaries_in, read_dictionary, texts_of_case

    stored = [read_dictionary(folder) for folder in dictionaries_in(Path(args.folder))]
    if args.case is None:
        document: dict[str, JsonValue] = {"dictionaries": [_document(each) for each in stored]}
        return Answer(document, (_table(stored), "name a case to see at which texts features fire"))
    with flags.progress(args) as progress:
        progress.say(f"opening {args.case}")
        case = _opened(args, Path(args.folder))
        look = _Look(case, make_bench(flags.settings(args)), texts_of_case(case, case.checkpoint("base")), args)
        views = [_view(look, each, progress) for each in stored]
    documents: list[JsonValue] = [_viewed_document(view) for view in views]
    return Answer({"case": args.case, "dictionaries": documents}, tuple(part for v in views for part in _shown(v)))


class _Look(NamedTuple):
    """What dictionaries are looked at with."""

    case: "OpenCase"
    bench: "Bench"
    texts: "CaseTexts"
    args: Namespace


class _View(NamedTuple):
    """One dictionary on a case. ``features`` are numbers, by firing rate in base; texts come quoted."""

    stored: "StoredDictionary"
    validity: "Validity"
    own_base: bool
    rates: Mapping[int, tuple[float, float]]
    texts: Mapping[int, "tuple[TopItem, ...]"]
    quote: "Callable[[TopItem], str]"


def _view(look: _Look, stored: "StoredDictionary", progress: "Progress") -> _View:
    """How well a dictionary fits base and suspect, and the texts at which its commonest features fire in base."""
    from audit.schema import AuditError
    from saes import activations_of, measure, top_items, validity

    case, bench, texts, args = look
    record = stored.record
    if record is None or record.site is None:
        problem = f"{stored.folder}: no record of ours says at which site it was trained"
        raise AuditError(problem, "leave out the case, or train it here")
    base, suspect, name = case.checkpoint("base"), case.checkpoint("suspect"), str(record.site)
    progress.say(f"reading {name}")
    source = activations_of(bench, base, texts, [record.site], record.patches)
    on_base = measure(stored.coder, source, name)
    on_suspect = measure(stored.coder, activations_of(bench, suspect, texts, [record.site], record.patches), name)
    common = on_base.firing_rates.argsort(descending=True, stable=True)[: args.features].tolist()
    return _View(
        stored, validity(on_base.fidelity, on_suspect.fidelity), record.checkpoint == base.key,
        {n: (float(on_base.firing_rates[n]), float(on_suspect.firing_rates[n])) for n in common},
        top_items(stored.coder, source, name, common, TEXTS), _quoting(Path(args.folder), args.unmask),
    )  # fmt: skip


def _quoting(folder: Path, unmask: bool) -> "Callable[[TopItem], str]":
    """How a text is shown: of the forget set by its mark, unless it is asked for."""
    from audit.runs import Mask, key_of
    from audit.wording import CELL, visible

    mask = None if unmask else Mask(key_of(folder))

    def quote(top: "TopItem") -> str:
        # an image has no question: it is called by its id
        text = f"{top.item.question or top.item.id} {top.item.answer}".strip()
        named = str(mask(text)) if mask is not None and top.cohort == "forget" else visible(text, CELL)
        return f"{named} ({top.spot})" if top.spot else named

    return quote


# ---- told -------------------------------------------------------------------------------------------------------
def _document(stored: "StoredDictionary") -> dict[str, JsonValue]:
    """What is known of a dictionary without a model."""
    coder, record = stored.coder, stored.record
    document: dict[str, JsonValue] = {
        "folder": str(stored.folder), "activation": coder.activation, "k": coder.k, "features": coder.features,
        "width": coder.width, "record": None if record is None else record.model_dump(mode="json"),
    }  # fmt: skip
    if stored.firing_rates is not None:
        order = stored.firing_rates.argsort(descending=True, stable=True)[:SHOWN].tolist()
        rates = stored.firing_rates.tolist()
        document["top_features"] = [{"feature": n, "firing_rate": rates[n]} for n in order]
    return document


def _viewed_document(view: _View) -> dict[str, JsonValue]:
    features: list[JsonValue] = [
        {
            "feature": n, "firing_rate": {"base": rates[0], "suspect": rates[1]},
            "top_texts": [
                {"text": view.quote(top), "cohort": top.cohort, "code": top.code, "share": top.share}
                for top in view.texts[n]
            ],
        }
        for n, rates in view.rates.items()
    ]  # fmt: skip
    return {
        **_document(view.stored), "trained_on_this_base": view.own_base,
        "validity": view.validity.model_dump(mode="json"), "top_features": features,
    }  # fmt: skip


def _table(stored: "Sequence[StoredDictionary]") -> "Table":
    from rich.table import Table

    from audit.wording import number

    table = Table(title="dictionaries, on texts that training did not see")
    for heading in ("dictionary", "architecture", "features", "FVE", "L0", "dead", "commonest features (firing rate)"):
        table.add_column(heading)
    for each in stored:
        record, measured = each.record, each.record.held_out if each.record is not None else None
        cells = ("?",) * 3 if measured is None else (number(measured.fve), number(measured.l0), str(measured.dead))
        architecture = each.coder.activation if record is None else record.settings.architecture
        table.add_row(each.folder.name, architecture, str(each.coder.features), *cells, _commonest(each))
    return table


def _commonest(stored: "StoredDictionary") -> str:
    from audit.wording import number

    if stored.firing_rates is None:
        return "not measured"
    order = stored.firing_rates.argsort(descending=True, stable=True)[: SHOWN // 2].tolist()
    return ", ".join(f"{n} ({number(float(stored.firing_rates[n]))})" for n in order)


def _shown(view: _View) -> "tuple[Table | str, ...]":
    from rich.table import Table

    from audit.wording import number

    name, gate = view.stored.folder.name, view.validity
    lines = [
        f"{name} in {role}, {f.rows} rows: FVE {number(f.fve)}, L0 {number(f.l0)}, {f.dead} of {f.features} dead"
        for role, f in (("base", gate.base), ("suspect", gate.other))
    ]
    lines += [f"{'valid' if gate.valid else 'NOT VALID'} on the suspect: {gate.because}"]
    lines += [] if view.own_base else ["it was trained on other weights than those of this case's base"]
    table = Table(title=f"{name}: features by firing rate in base")
    for heading in ("feature", "base", "suspect", "most active in base at"):
        table.add_column(heading)
    for n, (rate, other) in view.rates.items():
        texts = "\n".join(f"{number(top.code)}  {view.quote(top)}" for top in view.texts[n])
        table.add_row(str(n), number(rate), number(other), texts)
    return (*lines, table)
