"""The page: a certificate, the learning curves and the recipe of a run, put into the template."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from attar.certificate import Certificate, digits, metric_name, visible
from attar.certificate.harm import said
from attar.data import Split
from attar.files import write_atomic
from attar.report import corrupted, evidence, foreign, guarding, harm, pictures, tables
from attar.report.answers import replies, student_of
from attar.report.history import metric_of, read_curves
from attar.report.pages import drawn, environment
from attar.report.rows import shown
from attar.report.tables import Table
from attar.report.words import sentences

__all__ = ["write_report"]

# templates/sections/NAME.html, in their order
SECTIONS = (
    "helped",
    "differs",
    "shift",
    "corrupted",
    "foreign",
    "harm",
    "reliability",
    "guard",
    "replaces",
    "cost",
    "evidence",
    "tables",
    "limits",
    "identity",
)
DISTANCES = ("root_mean_square_distance",)  # by which epochs may be chosen, and less is better


def write_report(
    certificate: Certificate, out: Path, *, history: Path | None = None, test: Split | None = None, show_rows: int = 0
) -> Path:
    """Write the certificate as `out`/report.html, one page that needs nothing else, and say where it is.

    history: of the run, for the learning curves; None: `out`/history.jsonl, if it is there. The recipe is that of `out`, if there.
    test, show_rows: at most so many of the test rows that students lose are shown, with what they hold; without these their ids alone.
    Whatever is shown is escaped; of the data the page holds names of classes and groups, and no row but these.
    Raises MissingExtra without jinja2.
    """
    c = certificate
    lines = history or out / "history.jsonl"
    metric = metric_of(lines, c.claim["metric"])
    better = c.quality[metric].better if metric in c.quality else -1 if metric in DISTANCES else 1
    curves = read_curves(lines, metric)
    recipe = (out / "recipe.yaml").read_text(encoding="utf-8", errors="replace") if (out / "recipe.yaml").exists() else ""
    page = (
        environment()
        .get_template("report.html")
        .render(
            name=out.resolve().name,
            c=c,
            facts=_facts(c),
            replies=replies(c, student_of(recipe)),
            sections=SECTIONS,
            pictures={
                "gains": drawn(pictures.gains(c)),
                "learning": drawn(pictures.learning(curves, metric, better)),
                "likeness": drawn(pictures.agreement_given(c)),
                "agreement": drawn(pictures.agreement_by_class(c)),
                "numbers": drawn(pictures.numbers(c)),
                "reliability": [(heading, drawn(drawing)) for heading, drawing in pictures.reliability(c)],
                "cost": drawn(pictures.cost(c)),
                "differences": drawn(pictures.differences(c)),
                "shift": drawn(pictures.shift(c)),
                "foreign": [(name, drawn(drawing)) for name, drawing in foreign.curves(c)],
                "guard": drawn(guarding.curve(c)),
                "harm": [(heading, drawn(drawing)) for heading, drawing in harm.pictures(c)],
                "elsewhere": drawn(pictures.agreement_elsewhere(c)),
            },
            harmed=[sentences([text]) for text in said(c.harm)] if c.harm is not None else [],
            tables=(found := _tables(c)),
            foreign_names=[name for name in found if name.startswith("foreign-")],
            shown=[] if test is None else shown(c, test, show_rows),
            corrupted={
                "legend": drawn(corrupted.legend(c)),
                "pictures": [(heading, drawn(drawing)) for heading, drawing in corrupted.drawings(c)],
            },
            too_few=[table for table in foreign.tables(c) if not table.rows],
            similar="similarities" in c.pictures,
            labelled=bool(c.quality),
            margin=None if c.claim.get("margin") is None else f"{c.claim['margin']:.3g}",
            one_seed=_seeds(c) == 1,
            positive="reliability_positive" in c.pictures,
            temperature=c.identity["student"].get("temperature"),
            which=_which(c, student_of(recipe)),
            identity=_identity(c),
            recipe=recipe,
        )
    )
    write_atomic(out / "report.html", visible(page))
    return out / "report.html"


def _tables(c: Certificate) -> dict[str, Table | None]:
    """Every table of the page by name, in the order of the sections they belong to; None where one would be empty."""
    return {
        "procedure": tables.procedure(c),
        "fidelity": tables.fidelity(c),
        "shift": tables.shift(c),
        "corrupted": corrupted.errors(c),
        "told": corrupted.told(c),
        **{f"foreign-{k}": table for k, table in enumerate(foreign.tables(c)) if table.rows},
        **harm.tables(c),
        "listed": harm.listed(c),
        "calibration": tables.calibration(c),
        "kept": guarding.kept(c),
        "passing": guarding.passing(c),
        "cascade": guarding.cascade(c),
        "quality": tables.quality(c),
        "cost": tables.cost(c),
        "powered": evidence.accuracy(c),
        "conformal": evidence.conformal(c),
        "delong": evidence.auroc(c),
    }


def _seeds(c: Certificate) -> int:
    return max((figure.n for q in c.quality.values() for figure in q.gains.values()), default=0)


def _facts(c: Certificate) -> list[tuple[str, str]]:
    """What one has to know to read the answers."""
    rows, margin = c.identity["rows"], c.claim.get("margin")
    labelled = "" if rows["labelled"] == rows["test"] else f", {rows['labelled']:,} of them labelled"
    facts = [("judged on", f"{rows['test']:,} test rows{labelled}"), ("primary metric", metric_name(c.claim["metric"]))]
    if margin is not None:
        facts.append(("margin", f"{margin:.3g}, fixed beforehand"))
    look = c.identity.get("look")
    facts.append(("test split", f"look {look}" if look else "looks not counted"))
    if c.identity.get("when"):
        facts.append(("date", _when(c.identity["when"])[:10]))
    return facts


def _which(c: Certificate, recipe: str) -> list[tuple[str, str]]:
    """(name, text): which student it is that was measured."""
    student = c.identity["student"]
    file = (student.get("files") or {}).get(student.get("file"))
    count = c.cost.get("student", {}).get("parameters")
    found = [("recipe", recipe), ("file", str(student.get("file") or student["text"])), ("exported", _file(file) if file else "")]
    found += [("parameters", f"{count.value:,.0f}" if count is not None and count.value is not None else "")]
    found += [("fingerprint", str(student["fingerprint"]))]
    return [(what, text) for what, text in found if text]


def _identity(c: Certificate) -> list[tuple[str, str, str]]:
    """(name, text, text in the type of code): what was judged, so that it can be told from anything else."""
    i, claim = c.identity, c.claim
    teacher, student = i["teacher"], i["student"]
    found = [("task", f"decides {claim['decision']}" + _thresholds(claim), i["task"])]
    found += [
        ("teacher", f"its training rows are {teacher.get('training_rows', 'unknown')}", f"{teacher['text']}\n{teacher['fingerprint']}"),
        ("student", "", f"{student['text']}\n{student['fingerprint']}"),
    ]
    for name, file in (student.get("files") or {}).items():
        certified = "certified; " if name == student.get("file") else ""
        found.append((name, certified + _file(file), str(file.get("digest", ""))))
    rows = i["rows"]
    found.append(("data", f"{rows['test']:,} test rows, {rows.get('distinct', rows['test']):,} of them distinct", i["data"]))
    classes = i.get("classes") or ()
    if classes:
        shown = ", ".join(map(str, classes[:20])) + (", …" if len(classes) > 20 else "")
        found.append(("classes", f"{len(classes):,}: {shown}", ""))
    if i.get("seeds"):
        found.append(("seeds", ", ".join(f"{arm} {n}" for arm, n in i["seeds"].items()), ""))
    found.append(("versions", ", ".join(f"{name} {version}" for name, version in i["versions"].items()), ""))
    found.append(("machine", i["machine"], ""))
    if i.get("when"):
        found.append(("when", _when(i["when"]), ""))
    return found


def _thresholds(claim: Mapping[str, Any]) -> str:
    rules = {who: t for who, t in (claim.get("thresholds") or {}).items() if isinstance(t, float | int)}
    return "; " + ", ".join(f"{who} from {digits(t)}" for who, t in rules.items()) if rules else ""


def _file(file: Mapping[str, Any]) -> str:
    parts = [str(file.get("precision", ""))]
    if isinstance(size := file.get("bytes"), int):
        parts.append(f"{size:,} bytes")
    if isinstance(t := file.get("temperature"), float | int):
        parts.append(f"temperature {t:.3f}")
    parity = file.get("parity") or {}
    if isinstance(off := parity.get("max_difference"), float | int):
        parts.append(f"differs from the trained model by {off:.2g} at most on {parity.get('rows', 0):,} rows")
    return ", ".join(p for p in parts if p)


def _when(text: str) -> str:
    """A moment as people write it.

    >>> _when("2026-11-24T04:19:44+00:00")
    '2026-11-24, 04:19 UTC'
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return moment.strftime("%Y-%m-%d, %H:%M") + (" UTC" if moment.utcoffset() is not None and not moment.utcoffset() else "")
