"""Report to JUnit XML, for build servers: the verdict and every planned test as a case.

A trace is a failure, an error an error; what decides nothing (inconclusive, not run, a gate) is skipped and says why. A
build server knows no detection limit, so that a pass carries its own as its output.
"""

from collections.abc import Iterable, Sequence
from typing import Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from audit.render.sections.detections import findings_of
from audit.render.sections.findings import planned
from audit.render.wording.detections import answer_sentence, finding_name
from audit.render.wording.findings import evidence_sentence, sentence, title
from audit.render.wording.posterior import how_sure
from audit.schema import Evidence, Finding, Measurement, Missing, Report
from audit.wording import NAME, visible

TRACES: Final = ("INTACT", "PARTIAL", "SUPPRESSED")


def junit(report: Report) -> str:
    """One test suite with one case a planned test, the verdict first; ends with a newline."""
    suite = Element("testsuite", name=visible(report.report_id, NAME), timestamp=visible(report.created, NAME))
    _verdict(suite, report)
    for probe in dict.fromkeys(
        (*(t.probe for t in report.plan.tests), *(e.measurement.probe for e in report.evidence))
    ):
        _test(suite, report, probe)
    for m, finding in findings_of(report.evidence):
        _finding(suite, m, finding)
    for kind, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(len(list(suite.iter(tag)))))
    root = Element("testsuites")
    root.append(suite)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _case(suite: Element, classname: str, name: str, seconds: float) -> Element:
    return SubElement(suite, "testcase", classname=classname, name=name, time=f"{seconds:.3f}")


def _verdict(suite: Element, report: Report) -> None:
    verdict = report.verdict
    case = _case(suite, "residua", "verdict", 0.0)
    message = f"{verdict.word}: {how_sure(report)}"
    if verdict.word in TRACES:
        SubElement(case, "failure", message=message, type=verdict.word)
    elif verdict.word in ("INCONCLUSIVE", "INVALID"):
        SubElement(case, "skipped", message=message)
    else:
        SubElement(case, "system-out").text = message


def _test(suite: Element, report: Report, probe: str) -> None:
    """One planned test: broken, not run, a trace, undecided, or silent, in that order."""
    seconds = sum(t.wall_s for t in report.timings if t.unit == probe)
    case = _case(suite, "residua.probes", visible(probe, NAME), seconds)
    broken = [f for f in report.failures if f.probe == probe]
    reasons = [s.reason for s in report.skips if s.probe == probe]
    reasons += [t.reason for t in report.plan.tests if t.probe == probe and t.reason and t.reason not in reasons]
    rows = [e for e in report.evidence if e.measurement.probe == probe]
    judged = [e for e in rows if planned(e.measurement)]
    traces = [e for e in judged if e.outcome == "trace found"]
    if broken:
        SubElement(case, "error", message=_joined(sentence(f.error) for f in broken), type=visible(broken[0].error_id))
    elif not rows:
        SubElement(case, "skipped", message=_joined(map(sentence, reasons)) or "not run, and no reason is recorded")
    elif traces:
        SubElement(case, "failure", message=_sentences(traces), type="trace found")
    elif not judged or any(e.outcome != "no trace found" for e in judged):
        SubElement(case, "skipped", message=_sentences(judged or rows))
    else:
        SubElement(case, "system-out").text = _sentences(judged)


def _finding(suite: Element, m: Measurement, finding: Finding) -> None:
    """A rule of yes or no: one that holds fails, one that could not be asked is skipped, else its worth is output."""
    case = _case(suite, "residua.findings", f"{finding_name(finding)} ({title(m)})", 0.0)
    words = answer_sentence(m, finding)
    if isinstance(finding.holds, Missing):
        SubElement(case, "skipped", message=words)
    elif finding.holds:
        SubElement(case, "failure", message=words, type="finding holds")
    else:
        SubElement(case, "system-out").text = words


def _sentences(rows: Sequence[Evidence]) -> str:
    return _joined(f"{title(e.measurement)}: {evidence_sentence(e)}" for e in rows)


def _joined(parts: Iterable[str]) -> str:
    return "\n".join(parts)
