"""The model card: README.md of a run's folder, with the metadata that the Hugging Face hub reads and code that runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from attar.certificate import Certificate, Figure, digits, metric_name, visible
from attar.errors import RunError
from attar.files import write_atomic
from attar.report.answers import replies, student_of
from attar.report.words import bytes_of, interval, sentence_case

__all__ = ["write_card"]

FILE = "README.md"
MARK = "<!-- Written by attar. Without this line the file is left alone when the run is evaluated again. -->"
FOLDER = "student"
PIPELINES = {  # of the hub, by kind of task and of rows; what is not here has none
    ("classification", "table"): "tabular-classification",
    ("multilabel", "table"): "tabular-classification",
    ("regression", "table"): "tabular-regression",
    ("classification", "images"): "image-classification",
    ("multilabel", "images"): "image-classification",
    ("classification", "text"): "text-classification",
    ("multilabel", "text"): "text-classification",
    ("embedding", "text"): "sentence-similarity",
}
METRICS = {  # what the hub calls them, where it calls them otherwise
    "auroc": "roc_auc",
    "brier": "brier_score",
    "pearson": "pearsonr",
    "r2": "r_squared",
    "reciprocal_rank": "mrr",
    "spearman": "spearmanr",
}
OUTPUTS = {
    "logits": "of each outcome, divided by the fitted temperature",
    "probabilities": "of the outcomes: softmax of the logits; of several labels each by itself",
    "prediction": "the number, in the unit of the label",
    "embeddings": "the vector of each text",
    "energy": "log Σ exp of the logits: how much at home the row looks; below its floor the guard leaves it to the teacher",
    "confidence": "in the decision; by it the guard chooses",
    "answer": "whether the student may answer; where it is false, ask the teacher",
    "features": "what the last layer reads; by them foreign inputs can be told",
}
COLUMNS = 30  # of a row that the example spells out
SPECIAL = re.compile(r"([\\`*_\[\]<>|&~$])")
MARKER = re.compile(r"^([-+#=]+|\d+[.)])(?=\s|$)")  # what begins a list, a heading or a rule at the front of a line


def write_card(certificate: Certificate, out: Path) -> Path | None:
    """Write `out`/README.md, a model card for the folder `out`/student that was certified, and say where it is.

    A README.md there that is not attar's own is left alone: None. Nothing of the data is shown but names of columns and classes, and of
    columns the median and a category, as student.json has them. The card names no license: that is whoever's who publishes the model.
    Raises RunError where the folder of the student is not there or does not read.
    """
    path = out / FILE
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return None
    try:
        about = json.loads((out / FOLDER / "student.json").read_text(encoding="utf-8"))
        recipe = out / "recipe.yaml"
        text = card(certificate, about, out.resolve().name, recipe.read_text(encoding="utf-8", errors="replace") if recipe.exists() else "")
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"no model card without {out / FOLDER}: {error}", hint="attar export makes it") from error
    write_atomic(path, visible(text))
    return path


def card(c: Certificate, about: Mapping[str, Any], name: str, recipe: str = "") -> str:
    """The card as text. about: what student.json says."""
    head = yaml.safe_dump(_metadata(c, about, name, recipe), sort_keys=False, allow_unicode=True, width=120)
    parts = [
        f"---\n{head}---\n",
        f"# {escaped(name)}\n",
        _introduction(c, about),
        "## What was found\n",
        _answers(c, recipe),
        *_quality(c),
        "## How to use it\n",
        _usage(about),
        "## What goes in, and what comes out\n",
        _inputs(about),
        "## What was not tested\n",
        "\n".join(f"- {escaped(limit)}" for limit in c.limits) + "\n",
        "## What was judged\n",
        _identity(c),
        MARK + "\n",
    ]
    return "\n".join(parts)


# metadata


def _metadata(c: Certificate, about: Mapping[str, Any], name: str, recipe: str) -> dict[str, Any]:
    """The front matter. Without a license, which nobody here can grant."""
    kind, rows = _kind(about), about["schema"]["kind"]
    pipeline = PIPELINES.get((kind, rows))
    judged = [(metric, q.student) for metric, q in c.quality.items() if q.student.value is not None]
    found: dict[str, Any] = {"library_name": "onnx"}
    if pipeline:
        found["pipeline_tag"] = pipeline
    found["tags"] = ["attar", "knowledge-distillation", "onnx"]
    if judged:
        found["metrics"] = [METRICS.get(metric, metric) for metric, _ in judged]
        result = {
            "task": {"type": pipeline or "other"},
            "dataset": {"name": _data(c, recipe), "type": rows, "split": "test"},
            "metrics": [{"type": METRICS.get(m, m), "value": f.value, "name": _named(m, f)} for m, f in judged],
        }
        found["model-index"] = [{"name": name, "results": [result]}]
    return found


def _kind(about: Mapping[str, Any]) -> str:
    return str(about["task"]).partition("(")[0]


def _data(c: Certificate, recipe: str) -> str:
    """What the rows are called: the file that the recipe names, else their fingerprint."""
    line = re.search(r"^data: (.+)$", recipe, re.MULTILINE)
    path = re.search(r'\w\("([^"]+)"', line[1]) if line else None
    word = re.match(r"'?(\w+)\(", line[1]) if line else None
    named = Path(path[1]).name if path else word[1] if word else "data"
    return f"{named} {str(c.identity['data'])[:12]}"


def _named(metric: str, figure: Figure) -> str:
    ends = "" if figure.low is None or figure.high is None else f" [{digits(figure.low)}, {digits(figure.high)}]"
    return metric_name(metric).strip() + (f", 95 % interval{ends}" if ends else "")


# words


def _introduction(c: Certificate, about: Mapping[str, Any]) -> str:
    size = about["files"][about["certified"]].get("bytes")
    facts = [f"{about['parameters']:,} parameters" if about.get("parameters") else "", bytes_of(size / 1e6) if size else ""]
    said = ", ".join(fact for fact in facts if fact)
    rows = c.identity["rows"]["test"]
    return (
        f"A student, distilled by attar {escaped(c.identity['versions'].get('attar', ''))} from a teacher "
        f"and exported to ONNX{f': {said}' if said else ''}. Every figure below was measured on the file that lies here, on {rows:,} test "
        "rows; `report.html` shows them as pictures, `certificate.json` holds them all.\n"
    )


def _answers(c: Certificate, recipe: str) -> str:
    lines = []
    for r in replies(c, student_of(recipe)):
        rests = f" {escaped(r.figure)} {escaped(r.of)}." if r.figure else ""
        lines.append(f"**{escaped(r.question)}** {escaped(r.word)}.{rests} {escaped(r.text)}".rstrip() + "\n")
    for r in c.requirements:
        lines.append(f"**Required: {escaped(r.what)}.** {escaped(sentence_case(r.answer))}. {escaped(r.sentence)}".rstrip() + "\n")
    return "\n".join(lines)


def _quality(c: Certificate) -> list[str]:
    if not c.quality:
        return []
    rows = [
        (
            metric_name(metric).strip()
            + (", primary" if metric == c.claim["metric"] else "")
            + (", less is better" if q.better < 0 else ""),
            interval(q.teacher),
            interval(q.student),
            interval(q.difference, difference=True),
        )
        for metric, q in c.quality.items()
    ]
    return [_table(("", "teacher", "student", "student − teacher"), rows), "Intervals are at 95 %.\n"]


def _inputs(about: Mapping[str, Any]) -> str:
    schema = about["schema"]
    rows = [(code(i["name"]), i["dtype"], " × ".join(map(str, i["shape"])), escaped(_meaning(i["name"], schema))) for i in about["inputs"]]
    lines = [_table(("input", "type", "shape", "what it is"), rows, raw=True)]
    rows = [(code(name), escaped(OUTPUTS.get(name, ""))) for name in about["outputs"]]
    lines.append(_table(("output", "what it is"), rows, raw=True))
    if schema["classes"]:
        shown = ", ".join(escaped(name) for name in schema["classes"][:50]) + (", …" if len(schema["classes"]) > 50 else "")
        lines.append(f"Outcomes, in order: {shown}.\n")
    if about.get("notes"):
        lines.append("\n".join(f"- {escaped(note)}" for note in about["notes"]) + "\n")
    return "\n".join(lines)


def _meaning(name: str, schema: Mapping[str, Any]) -> str:
    columns = schema["columns"]
    if name == "numbers":
        return "columns of numbers, NaN where missing: " + _some([c["name"] for c in columns if c["kind"] != "category"])
    if name == "categories":
        named = _some([c["name"] for c in columns if c["kind"] == "category"])
        return f"columns of categories, value i of student.json has code i + 1, 0 is missing or never seen: {named}"
    return {
        "pixels": "images as they are, 0..255, channels first, of this size",
        "input_ids": "what the tokenizer beside the graph makes of a text",
        "attention_mask": "1 where a token is real",
        "token_type_ids": "0 in the first text, 1 in the second",
        "inputs": "rows as they are",
    }.get(name, "")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


def _identity(c: Certificate) -> str:
    i = c.identity
    student = i["student"]
    files = [(name, str(file.get("digest", ""))) for name, file in (student.get("files") or {}).items()]
    rows = [
        ("student", student["fingerprint"]),
        *files,
        ("teacher", i["teacher"]["fingerprint"]),
        ("data", i["data"]),
        ("look at the test split", str(i.get("look") or "not counted")),
        ("made", " ".join([f"attar {i['versions'].get('attar', '')}", *([str(i["when"])] if i.get("when") else [])])),
        ("costs measured on", i["machine"]),
    ]
    again = "`attar check .` in this folder holds what was required against the certificate.\n"
    return _table(("", "fingerprint"), [(escaped(name), code(value)) for name, value in rows if value], raw=True) + "\n" + again


# code


def _usage(about: Mapping[str, Any]) -> str:
    """Code that asks the certified graph one row, run from this folder."""
    need, lines = {"images": _images, "table": _rows, "text": _texts}.get(about["schema"]["kind"], _tensor)(about)
    graph = f"{FOLDER}/{about['certified']}"
    body = [
        "import json",
        "from pathlib import Path",
        "",
        "import numpy as np",
        "import onnxruntime",
        *([need[1]] if need else []),
        "",
        f'session = onnxruntime.InferenceSession("{graph}", providers=["CPUExecutionProvider"])',
        f'about = json.loads(Path("{FOLDER}/student.json").read_text(encoding="utf-8"))',
        "",
        *lines,
        *_asking(about),
    ]
    packages = " ".join(["numpy", "onnxruntime", *([need[0]] if need else [])])
    return f"```bash\npip install {packages}\n```\n\n```python\n" + "\n".join(body) + "\n```\n"


Snippet = tuple[tuple[str, str] | None, list[str]]  # (package, its import) beyond numpy and onnxruntime; lines


def _images(about: Mapping[str, Any]) -> Snippet:
    channels, height, width = about["schema"]["shape"]
    mode = "L" if channels == 1 else "RGB"
    shape = f"({height}, {width})" if channels == 1 else f"({height}, {width}, {channels})"
    reading = f'Image.open("a.png").convert("{mode}").resize(({width}, {height}), Image.Resampling.BILINEAR)'
    return None, [
        f"# with pillow: image = np.asarray({reading})",
        f"image = np.zeros({shape}, np.uint8)",
        f'feeds = {{"pixels": image.reshape(1, {height}, {width}, {channels}).transpose(0, 3, 1, 2)}}',
    ]


def _rows(about: Mapping[str, Any]) -> Snippet:
    columns = about["schema"]["columns"]
    shown = [f"    {json.dumps(c['name'], ensure_ascii=False)}: {json.dumps(_value(c), ensure_ascii=False)}," for c in columns[:COLUMNS]]
    shown += (
        [f"    # and {len(columns) - COLUMNS:,} columns more; one that is left out counts as missing"] if len(columns) > COLUMNS else []
    )
    return None, [
        "row = {",
        *shown,
        "}",
        'columns = about["schema"]["columns"]',
        'numbers = [row.get(c["name"], np.nan) for c in columns if c["kind"] != "category"]',
        'kinds = [(c["categories"], row.get(c["name"])) for c in columns if c["kind"] == "category"]',
        "codes = [known.index(value) + 1 if value in known else 0 for known, value in kinds]",
        'feeds = {"numbers": np.array([numbers], np.float32), "categories": np.array([codes], np.int64)}',
        "feeds = {i.name: feeds[i.name] for i in session.get_inputs()}",
    ]


def _value(column: Mapping[str, Any]) -> str | float:
    """A value of the column that no single row need have: its median, or the first of its categories."""
    if column["kind"] == "category":
        return column["categories"][0] if column["categories"] else ""
    return float(f"{column['median']:.4g}")


def _texts(about: Mapping[str, Any]) -> Snippet:
    said = about["text"]
    reading = said["reading"]
    texts = ["A text.", "Another one."] if len(said["names"]) > 1 and not said["each"] else ["A text."]
    row = ", ".join(f'"{text}"' for text in texts)
    if reading["kind"] != "tokens":
        feed = f'feeds = TextFeed.from_json(about["text"], Path("{FOLDER}")).reading.arrays([({row},)])'
        return ("attar", "from attar.reading import TextFeed  # hashed words need no tokenizer"), [feed]
    special = "" if reading["special"] else ", add_special_tokens=False"
    lines = [
        f'tokenizer = Tokenizer.from_file("{FOLDER}/{reading["file"]}")',
        "tokenizer.no_padding()",
        f"tokenizer.enable_truncation({reading['max_length']})",
        f"read = tokenizer.encode({row}{special})",
        "ids = read.ids",
    ]
    if reading["kept"] is not None:
        lines += [
            'small = {token: place for place, token in enumerate(about["text"]["reading"]["kept"])}',
            f"ids = [small.get(token, {reading['unknown']}) for token in ids]",
        ]
    made = {"input_ids": "ids", "attention_mask": "[1] * len(ids)", "token_type_ids": "read.type_ids"}
    feeds = ", ".join(f'"{name}": np.array([{made[name]}], np.int64)' for name in reading["names"])
    return ("tokenizers", "from tokenizers import Tokenizer"), [*lines, f"feeds = {{{feeds}}}"]


def _tensor(about: Mapping[str, Any]) -> Snippet:
    shape = ", ".join(map(str, (1, *about["schema"]["shape"])))
    return None, [f'feeds = {{"inputs": np.zeros(({shape}), np.float32)}}']


def _asking(about: Mapping[str, Any]) -> list[str]:
    kind = _kind(about)
    if kind == "regression":
        return ['(prediction,) = session.run(["prediction"], feeds)', "print(float(prediction[0, 0]))"]
    if kind == "embedding":
        return ['(embeddings,) = session.run(["embeddings"], feeds)', "print(embeddings.shape)"]
    told = 'print(dict(zip(about["schema"]["classes"], probabilities[0].tolist())))'
    if "answer" in about["outputs"]:
        guarded = 'probabilities, answer = session.run(["probabilities", "answer"], feeds)'
        return [guarded, told, 'print("the student answers" if answer[0] else "ask the teacher")']
    return ['(probabilities,) = session.run(["probabilities"], feeds)', told]


# Markdown


def escaped(text: object) -> str:
    r"""The text as Markdown that shows it, on one line: no markup, no HTML, no link.

    >>> escaped("<b>1*2*3</b> | www.x.org")
    '\\<b\\>1\\*2\\*3\\</b\\> \\| www\\.x.org'
    """
    line = " ".join(str(text).split())
    line = SPECIAL.sub(r"\\\1", line).replace("://", ":\\/\\/").replace("www.", "www\\.")
    return MARKER.sub(lambda m: f"{m[1][:-1]}\\{m[1][-1]}" if m[1][0].isdigit() else f"\\{m[1]}", line)


def code(text: object) -> str:
    r"""The text as a code span, in a cell of a table too.

    >>> code("a`b|c")
    '`` a`b\\|c ``'
    """
    line = " ".join(str(text).split()).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, raw: bool = False) -> str:
    """raw: the cells are Markdown already."""
    write = (lambda cell: cell) if raw else escaped
    lines = [head, ["---"] * len(head), *([write(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
