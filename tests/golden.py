"""Hand-made reports with realistic numbers: one for every rung that a view must show well.

``report(variant)`` builds one; ``VARIANTS`` names them. They are made by hand, not by the engine, so that a view can be
tested without a model, and they share no code with the views.
"""

import hashlib
import json
from typing import Literal

from audit.schema import (
    EFFECT_UNIT,
    RATIO_UNIT,
    AttackCoverage,
    CalibrationUse,
    Case,
    Control,
    Cost,
    Count,
    Counted,
    Curve,
    DataFiles,
    DecoyPeople,
    DetectionLimit,
    Dose,
    Environment,
    Evidence,
    Excerpt,
    Excerpts,
    Exhibit,
    Failure,
    Interval,
    LikelihoodRatio,
    Masked,
    Measurement,
    Missing,
    Null,
    Outcome,
    Overall,
    PeopleKept,
    Plan,
    PlannedTest,
    Power,
    Quote,
    Rate,
    Reliability,
    Report,
    RoleAudit,
    Roles,
    Share,
    Shown,
    Skip,
    Source,
    Status,
    Table,
    Timing,
    Validation,
    Verdict,
)

Variant = Literal["suppressed", "calibrated", "consistent", "inconclusive", "invalid", "broken", "hostile"]
VARIANTS: tuple[Variant, ...] = (
    "suppressed",
    "calibrated",
    "consistent",
    "inconclusive",
    "invalid",
    "broken",
    "hostile",
)

NO_NULL = Missing(missing="a gate has no null")
NO_TABLE = Missing(missing="no item table is kept for this test")
HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31mred\x1b[0m \u202egnp.exe\u2066 {{7*7}} |cell| `tick` @all"


def sha(text: str) -> str:
    """A stand-in hash."""
    return hashlib.sha256(text.encode()).hexdigest()


def null(centre: float, spread: float, n: int = 999, kind: str = "sign flips over people") -> Null:
    """101 quantiles of a symmetric null."""
    return Null(kind=kind, quantiles=tuple(centre + spread * (q - 50) / 50 for q in range(101)), n=n)


def effect(probe: str, name: str, kind: str, value: float, half: float, **more: object) -> Measurement:
    """A measurement on the effect scale: 0 never trained, 1 base."""
    fields: dict[str, object] = {
        "probe": probe, "name": name, "kind": kind, "statistic": f"effect on the {name}, trained rows", "value": value,
        "unit": EFFECT_UNIT, "scale": "effect",
        "ci95": Interval(lo=value - half, hi=value + half), "n": Count(scored=160), "unit_of_replication": "person",
        "units": 32, "seed": 0, "p": 0.001 if value > 0.2 else 0.41, "p_below": 0.62, "null": null(0.0, 0.06),
        "positive_control": Control(value=1.0, ci95=Interval(lo=0.97, hi=1.03), found=True), "floor": 0.021,
        "items": Table(path=f"tables/{probe}.parquet", sha256=sha(probe), rows=160, columns=("item", "group", "score"),
                       axis=""),
        "cost": Cost(fwd_tokens=48_000),
    }  # fmt: skip
    return Measurement.model_validate({**fields, **more})


POWER = Power(share=0.12, people=2, of=32, power=0.8)
BLUNT = Power(
    share=Missing(missing="not even all of it"), people=Missing(missing="not even everybody"), of=32, power=0.8
)


def overall(value: float, half: float, floor: float = 0.015) -> Overall:
    """An effect over all layers."""
    return Overall(value=value, ci95=Interval(lo=value - half, hi=value + half), floor=floor)


def profile(suspect: tuple[float, ...]) -> tuple[Curve, ...]:
    """A depth profile: base, suspect with its interval and null band, floor and gate."""
    x = tuple(float(i) for i in range(len(suspect)))
    return (
        Curve(axis="layer", unit="effect", scale="effect", role="base", x=x, y=tuple(1.0 for _ in x)),
        Curve(
            axis="layer", unit="effect", scale="effect", role="suspect", x=x, y=suspect,
            lo=tuple(v - 0.06 for v in suspect), hi=tuple(v + 0.06 for v in suspect),
            null_lo=tuple(-0.04 for _ in x), null_hi=tuple(0.05 for _ in x),
        ),
        Curve(axis="layer", unit="effect", scale="effect", role="floor", x=x,
              y=tuple(0.02 - 0.01 * (i % 2) for i in range(len(x)))),
        Curve(
            axis="layer", unit="retain reading relative to base", scale="ratio", role="gate", x=x,
            y=tuple(0.99 - 0.01 * i for i in range(len(x))),
        ),
    )  # fmt: skip


OUTCOMES: dict[str, Outcome] = {"trace": "trace found", "below": "trace found", "silent": "no trace found"}


def judged(m: Measurement, status: Status, because: str, direction: str = "none") -> Evidence:
    """Evidence on an in-case basis."""
    return Evidence.model_validate(
        {"measurement": m, "outcome": OUTCOMES.get(status, "inconclusive"), "status": status, "direction": direction,
         "because": because, "basis": "in-case"}
    )  # fmt: skip


def gate(value: float) -> Evidence:
    """The utility gate: retain probability as a share of base's."""
    m = effect("utility", "retain probability", "gate", value, 0.01).model_copy(
        update={
            "statistic": "retain probability, suspect / base", "unit": RATIO_UNIT, "scale": "ratio",
            "p": NO_NULL, "p_below": NO_NULL, "null": NO_NULL, "floor": NO_NULL, "items": NO_TABLE,
        }
    )  # fmt: skip
    word = "passed" if value >= 0.5 else "failed"
    return judged(m, "gate_passed" if value >= 0.5 else "gate_failed", 
                  f"gate {word}: the suspect keeps {value:.2f} of base on retained items")  # fmt: skip


def evidence(output: float, causal: tuple[float, ...], lens: float, utility: float = 0.98) -> tuple[Evidence, ...]:
    """A full set: gate, outputs, causal reading, decoding, and a context number."""
    best = max(range(1, len(causal)), key=lambda i: causal[i])
    found = max(causal[1:]) >= 0.05
    out_word: Status = "trace" if output >= 0.1 else "silent"
    items = [
        gate(utility),
        judged(effect("forget_likelihood", "probability", "output", output, 0.03), out_word, f"effect {output:.2g}"),
        judged(
            effect("forget_likelihood", "extraction strength", "output", output * 0.8, 0.04), out_word,
            "the share of the answer that the model completes by itself",
        ),
        judged(
            effect(
                "reverse_patch", "answer positions", "causal", causal[best], 0.06, curves=profile(causal),
                layer=best, readings={"layer_of_largest_effect": float(best), "effect_layer1": causal[1]},
                overall=overall(sum(causal[1:]) / (len(causal) - 1), 0.04), power=POWER,
            ),
            "trace" if found else "silent",
            "above the floor of this case" if found else "a trace of 0.10 would show",
            "above" if found else "none",
        ),
        judged(
            effect("answer_lens", "lift over alternates", "decoding", lens, 0.05, power=BLUNT),
            "trace" if lens >= 0.2 else "silent", "difference in differences over people",
        ),
        judged(
            effect("forget_likelihood", "truth ratio", "context", 0.44, 0.05, unit="ratio", scale="ratio",
                   statistic="truth ratio"),
            "listed", "context only: it enters no verdict",
        ),
    ]  # fmt: skip
    return tuple(items)


VERDICTS: dict[str, Verdict] = {
    "suppressed": Verdict(
        word="SUPPRESSED", strength="full", direction="above", basis="in-case",
        sentence="The outputs are clean, but the suspect's states still let the base answer.",
        because=("no output test finds a trace", "reverse patch finds a trace at layer 3, above null and floor"),
        limits=("no error rate is known for models of this kind", "one language and 32 people were tested"),
        would_change=("a reference trained in another data order that reads as high as the suspect",),
    ),
    "consistent": Verdict(
        word="CONSISTENT WITH NEVER TRAINED", strength="full", direction="none", basis="in-case",
        sentence="No test that finds the knowledge in base finds it in the suspect.",
        because=("reverse patch is silent where it found base", "the answer lens is silent where it found base"),
        limits=("a trace smaller than the detection limits would not be seen",),
        would_change=("recovery by relearning, which was not tested",),
    ),
    "inconclusive": Verdict(
        word="INCONCLUSIVE", strength="none", direction="none", basis="in-case",
        sentence="Base's later blocks cannot read the suspect's states, so nothing can be said about them.",
        because=("no layer passes the compatibility gate: base reads at most 0.31 of its own retain answers",),
        limits=("the suspect does not share base's initialisation",),
        would_change=("a base that shares the suspect's ancestor",),
    ),
    "invalid": Verdict(
        word="INVALID", strength="none", direction="none", basis="in-case",
        sentence="The suspect is broken: its silence on the forget set means nothing.",
        because=("retain probability is 0.03 of base; the suspect is usable from 0.50",),
        limits=("nothing is said about the forget set",),
        would_change=("a suspect that still answers retain questions",),
    ),
}  # fmt: skip


KEPT = PeopleKept(kept=0.5, ci95=Interval(lo=0.32, hi=0.68), level=0.93, log10_ratio=2.4,
                  named=tuple(sha(f"person {i}")[:12] for i in range(11)), fdr=0.05, of=32)  # fmt: skip
AXES = {
    "outputs": Share(value=0.012, ci95=Interval(lo=-0.018, hi=0.042), measurement="forget_likelihood.probability"),
    "internals": Share(value=0.95, ci95=Interval(lo=0.86, hi=1.04), measurement="reverse_patch.answer positions"),
    "people": KEPT,
}  # fmt: skip
AUDITED = (
    RoleAudit(role="reference 0", takes_part=True, because=("no test finds a trace in it",),
              readings={"effect": 0.012, "weights_moved": 0.41}),
    RoleAudit(role="reference 1", takes_part=False, because=("it is a copy of the suspect: its weights lie 0.0004 of "
              "the way from the ancestor apart, where two references lie 1.3 apart",), readings={"effect": 0.51}),
    RoleAudit(role="base", takes_part=True, because=("base recalls 31 of 32 people",), unknown=(sha("unknown")[:12],)),
)  # fmt: skip


RATIO = LikelihoodRatio(
    value=52.0, ci95=Interval(lo=14.0, hi=61.0), floor=1 / 61, ceiling=61.0, words="moderate support",
    false_alarms=Rate(k=0, n=60, upper95=0.0487), misses=Rate(k=1, n=60, upper95=0.0767),
    limit=DetectionLimit(kept=2, audited=16, k=11, n=12, power=0.8), calibration="joint 0123456789ab",
)  # fmt: skip
USES = (
    CalibrationUse(probe="reverse_patch", status="holds", because="valid for llama; blocks 3 to 5; not for others",
                   renew="", sha256=sha("r"), pool="zoo", worlds=60),
    CalibrationUse(probe="answer_lens", status="stale", because="the probe's source has changed",
                   renew="residua calibrate", sha256=sha("a"), pool="zoo", worlds=60),
)  # fmt: skip


VALIDATION = Validation(
    rule="joint 0123456789ab", pool="zoo", worlds=60, score=1.4,
    reliability=Reliability(
        cllr=0.16, cllr_min=0.09, gap=0.07, gap_ci95=Interval(lo=0.05, hi=0.1), envelope=0.04,
        clean=tuple(-1.5 + (i / 100) ** 8 * 2 for i in range(101)),
        knowing=tuple(1.6 - (1 - i / 100) ** 6 for i in range(101)),
        bands=((-1.4, -1.9, 2, 180), (-0.2, Missing(missing="models of one kind only"), 0, 9), (1.3, 1.6, 90, 2)),
    ),
    counted=(Counted(mechanism="dose", pool="knowing", found=12, worlds=12),
             Counted(mechanism="retrained", pool="clean", found=0, worlds=60)),
    doses=tuple(Dose(kept=k, audited=16, k=n, n=12, power=p) for k, n, p in ((1, 6, 0.5), (2, 11, 0.9), (4, 12, 1.0))),
)  # fmt: skip


def masked(text: str) -> Masked:
    """A stand-in mark."""
    return Masked(mark=sha(text)[:12], words=len(text.split()))


def excerpts(texts: tuple[Quote, ...]) -> tuple[Excerpts, ...]:
    """One quoted table with one item a text, which stands in every place of it."""
    items = tuple(
        Excerpt(chosen="random" if i % 2 else "highest", item=text, group=text, prompt=text, target=text, output=text,
                layer=3, scores={"base": 0.9, "suspect": 0.8 - 0.1 * i, "reference": 0.01})
        for i, text in enumerate(texts)
    )  # fmt: skip
    rule = "the 5 items with the highest score of the suspect, and 5 of the others at random, seed 0"
    return (Excerpts(table="tables/reverse_patch.parquet", findings=("reverse_patch.answer positions",), rule=rule,
                     of=160, items=items, axis="layer"),)  # fmt: skip


QUOTED = excerpts((masked("Ada Lovelace"), masked("a mathematician"), masked("")))


def calibrated() -> Report:
    """The suppressed report, judged by models of known truth: one calibration holds, one is stale."""
    found = list(evidence(0.012, (0.82, 0.97, 1.0, 1.0), 0.66))
    inside = next(i for i, e in enumerate(found) if e.measurement.kind == "causal")
    found[inside] = found[inside].model_copy(update={"basis": "calibrated", "ratio": RATIO, "threshold": 0.057})
    said = (
        "SUPPRESSED: The findings are about 52 times more probable if the suspect still carries information from the "
        "forget set than if not."
    )
    because = ("the rule raised a false alarm in 0 of 60 worlds and missed in 1 of 60 worlds",)
    verdict = VERDICTS["suppressed"].model_copy(
        update={"basis": "calibrated", "ratio": RATIO, "because": because, "sentence": said, **AXES}
    )
    more = {"calibrations": USES, "validation": VALIDATION, "roles_audited": AUDITED}
    return assemble("demo: calibrated", tuple(found), verdict, more=more)


def exhibits() -> tuple[Exhibit, ...]:
    """Base, suspect, three references' worth of items received."""
    files = {"config.json": sha("c"), "model.safetensors": sha("m"), "tokenizer.json": sha("t")}
    names = {"base": "base", "suspect": "suspect", "reference 1": "r1", "reference 2": "r2", "ancestor": "ancestor"}
    return tuple(
        Exhibit(
            role=role, path=f"models/{folder}", family="llama", fingerprint=sha(role), size_bytes=1_312_884,
            files=files, verified_after=True,
        )
        for role, folder in names.items()
    )  # fmt: skip


def plan(name: str, skips: tuple[Skip, ...]) -> Plan:
    """The plan of a golden report."""
    case = Case(
        name=name,
        roles=Roles(
            base=Source(path="models/base"), suspect=Source(path="models/suspect"),
            references=(Source(path="models/r1", data_order=1), Source(path="models/r2", data_order=2)),
            ancestor=Source(path="models/ancestor"),
        ),
        data=DataFiles(forget="forget.jsonl", retain="retain.jsonl", holdout="holdout.jsonl"), edited="all",
    )  # fmt: skip
    questions = {
        "utility": "Is the suspect still usable on data it was told to keep?",
        "forget_likelihood": "Does the suspect still say the answers?",
        "reverse_patch": "Can base's later blocks read the answer from the suspect's states?",
        "answer_lens": "Can the suspect's own head read the answer from its states?",
    }
    tests = [
        PlannedTest(probe=p, question=q, will_run=True, reason="", cost=Cost(fwd_tokens=48_000))
        for p, q in questions.items()
    ]
    tests += [
        PlannedTest(probe=s.probe, question="Does it come back?", will_run=False, reason=s.reason, cost=Cost())
        for s in skips
    ]
    return Plan(
        case=case, fingerprints={e.role: e.fingerprint for e in exhibits()}, data_sha256={"forget": sha("forget")},
        tests=tuple(tests), code_version="0.1.0", plan_hash=sha(name),
    )  # fmt: skip


ENVIRONMENT = Environment(
    python="3.11.7", platform="Linux x86_64", packages={"torch": "2.13.0", "transformers": "5.23.0"}, device="cpu",
    dtype="float32", backend="native", threads=1, flags={"attention": "default", "deterministic": "yes"},
)  # fmt: skip
RULE = (
    "INVALID if the suspect keeps less than half of base's retain probability.",
    "INTACT if the output effect on edited rows is at least 0.50, PARTIAL if at least 0.10.",
    "SUPPRESSED if an eligible layer has effect at least 0.05, p < 0.01 and more than the floor.",
    "CONSISTENT WITH NEVER TRAINED only if reverse patch and lens are silent where both found base; else INCONCLUSIVE.",
)
ATTACKS = tuple(
    AttackCoverage(family=family, access=access, attack=attack, measurements=n)
    for family, access, attack, n in (
        ("reading the outputs", "logits", "", 1), ("reading internal states", "weights", "", 2),
        ("relearning", "fine-tuning", "relearning", 0), ("quantisation", "weights", "quantisation", 0),
    )
)  # fmt: skip


def assemble(name: str, found: tuple[Evidence, ...], verdict: Verdict, *, skips: tuple[Skip, ...] = (),
             failures: tuple[Failure, ...] = (), more: dict[str, object] | None = None) -> Report:  # fmt: skip
    """A whole report, with the id that its content gives; ``more`` are fields of the document."""
    body = Report(
        report_id="UA-000000000000", created="2026-01-02T03:04:05Z",
        tool={"name": "residua", "version": "0.1.0", "commit": "0" * 40}, demo=name != "received",
        plan=plan(name, skips), exhibits=exhibits(), environment=ENVIRONMENT,
        cohorts={"forget": {"items": 320, "people": 32, "audit items": 160}, "retain": {"items": 480, "people": 48}},
        evidence=found, skips=skips, failures=failures, verdict=verdict, decision_rule=RULE, 
        coverage=tuple((a.family, a.access, a.state) for a in ATTACKS), attacks=ATTACKS,
        limits=("results relate only to the files listed", "no error rate is known for models of this kind"),
        reproduce="residua run case.toml -o runs/again",
        timings=(Timing(unit="reverse_patch:suspect:0", cpu_s=1.25, wall_s=0.8),),
        registered="2026-01-02T03:00:00Z", excerpts=QUOTED,
    ).model_copy(update=more or {})  # fmt: skip
    document = body.model_dump(mode="json", exclude={"report_id", "created", "registered", "timings"})
    digest = sha(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    return body.model_copy(update={"report_id": f"UA-{digest[:12]}"})


def report(variant: Variant = "suppressed") -> Report:
    """One golden report."""
    relearn = Skip(probe="relearn", reason="needs an operation that this backend lacks: train",
                   consequence="recovery by relearning is not excluded")  # fmt: skip
    if variant == "suppressed":
        found = evidence(0.012, (0.82, 0.97, 1.0, 1.0), 0.66)
        verdict = VERDICTS[variant].model_copy(update=AXES)
        return assemble("demo: head edit", found, verdict, skips=(relearn,), more={"roles_audited": AUDITED})
    if variant == "calibrated":
        return calibrated()
    if variant == "consistent":
        return assemble("received", evidence(0.004, (0.41, 0.013, -0.008, 0.011), 0.009), VERDICTS[variant])
    if variant == "inconclusive":
        reason = "no layer passes the compatibility gate"
        gone = Missing(missing=reason)
        stuck = effect("reverse_patch", "answer positions", "causal", 0.0, 0.1).model_copy(
            update={"value": gone, "ci95": gone, "p": gone, "p_below": gone}
        )
        found = (*evidence(0.002, (0.1, 0.0), 0.02)[:3], judged(stuck, "blind", reason))
        return assemble("demo: another initialisation", found, VERDICTS[variant])
    if variant == "invalid":
        return assemble("demo: destroyed", evidence(-0.01, (0.2, 0.0, 0.0), 0.01, utility=0.03), VERDICTS[variant])
    broken = Failure(probe="answer_lens", error="RuntimeError: size mismatch", error_id="E-1f2e3d")
    if variant == "broken":
        found = evidence(0.012, (0.8, 0.03, 0.02), 0.0)[:4]
        return assemble("demo: broken", found, VERDICTS["inconclusive"], skips=(relearn,), failures=(broken,))
    bad = judged(
        effect("forget_likelihood", HOSTILE, "output", 0.3, 0.1, readings={HOSTILE: 1.0}, notes=(HOSTILE,)),
        "trace", HOSTILE * 40,
    )  # fmt: skip
    failure = Failure(probe=HOSTILE, error=HOSTILE, error_id="E-000000")
    spoken = {"sentence": HOSTILE, "because": (HOSTILE,), "limits": (HOSTILE,)}
    verdict = VERDICTS["suppressed"].model_copy(update=spoken)
    return assemble(HOSTILE, (bad, *evidence(0.0, (0.5, 0.5), 0.1)), verdict, failures=(failure,), skips=(
        Skip(probe=HOSTILE, reason=HOSTILE, consequence=HOSTILE),),
        more={"excerpts": excerpts((Shown(text=HOSTILE), Shown(text=HOSTILE * 20_000))), "masked": False,
              "parent": HOSTILE})  # fmt: skip


def own_kind() -> Report:
    """The calibrated report as a calibration of the case's own kind gives it: a fake was missed, and all is widened."""
    found = report("calibrated")
    assert not isinstance(found.validation, Missing)
    counted = (
        Counted(mechanism="head_edit", pool="knowing", found=17, worlds=19),
        Counted(mechanism="dose", pool="knowing", found=12, worlds=12),
        Counted(mechanism="retrain", pool="clean", found=1, worlds=19),
        Counted(mechanism="npo", pool="edited clean", found=0, worlds=6),
    )
    decoys = DecoyPeople(
        people=20, questions=40, steps=300, left_out=("logit_bias",), share=0.283, false_alarms=0.2941, misses=0.41
    )
    update = {"pool": "demo's own kind", "worlds": 19, "counted": counted, "decoys": decoys}
    return found.model_copy(update={"validation": found.validation.model_copy(update=update)})
