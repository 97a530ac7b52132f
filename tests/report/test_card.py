"""The model card: metadata that the hub reads, code that runs in that very folder, and nothing in it that is markup unasked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from attar.certificate import Certificate, Figure, Quality, Requirement
from attar.data import Data
from attar.errors import RunError
from attar.reading import TextModel, Tokens
from attar.report import write_card
from attar.report.card import PIPELINES, _asking, card, code, escaped
from attar.signal import Batch, Texts
from attar.sources.onnx import onnx
from attar.task import Task, task_for
from attar.testing.certificates import small_certificate
from attar.testing.small import SmallCNN, SmallMLP, small_images, small_table
from attar.testing.texts import small_pairs, small_text_model, small_texts
from attar.verbs.export import export

EVIL = '<script>alert(1)</script> [x](http://e.org) `a` | *b* \n# c "'
TASKS = {  # what the hub lists; https://huggingface.co/tasks
    "tabular-classification",
    "tabular-regression",
    "image-classification",
    "text-classification",
    "sentence-similarity",
}


@dataclass(frozen=True)
class Shipped:
    """A run folder with an exported student, its model card, and what the card says is done with it."""

    folder: Path
    data: Data
    text: str

    @property
    def head(self) -> dict[str, Any]:
        return yaml.safe_load(self.text.split("---\n")[1])

    @property
    def snippet(self) -> str:
        (found,) = re.findall(r"```python\n(.*?)```", self.text, re.DOTALL)
        return found

    def ran(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """The names that the card's own code leaves, run in its folder."""
        monkeypatch.chdir(self.folder)
        names: dict[str, Any] = {}
        exec(compile(self.snippet, "README.md", "exec"), names)
        return names


def ship(folder: Path, model: nn.Module, data: Data, task: Task | None = None) -> Shipped:
    bound = (task or task_for(data.schema, data.kind)).bind(data.schema)
    export(model, data, bound, at=folder / "student")
    identity = {**small_certificate().identity, "task": repr(bound)}
    path = write_card(small_certificate(identity=identity), folder)
    assert path is not None
    assert path == folder / "README.md"
    return Shipped(folder, data, path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    data = small_table()
    torch.manual_seed(0)
    return ship(tmp_path_factory.mktemp("card") / "credit", SmallMLP(data.schema, 2), data)


# --- metadata


def test_the_hub_reads_its_metadata_and_results(table: Shipped) -> None:
    hub = pytest.importorskip("huggingface_hub")
    loaded = hub.ModelCard(table.text)
    found = loaded.data.to_dict()
    assert found["library_name"] == "onnx"
    assert found["pipeline_tag"] == "tabular-classification"
    assert found["metrics"] == ["accuracy", "log_loss"]
    assert {"license", "base_model", "datasets"} & set(found) == set()  # nobody said so
    results = loaded.data.eval_results
    assert [(r.metric_type, r.metric_value, r.task_type, r.dataset_split) for r in results] == [
        ("accuracy", 0.8045, "tabular-classification", "test"),
        ("log_loss", 0.45, "tabular-classification", "test"),
    ]
    assert results[0].metric_name == "accuracy, 95 % interval [0.7945, 0.8145]"
    assert loaded.data.model_name == "credit"
    again = hub.ModelCardData(**table.head)
    assert again.to_dict() == found


def test_every_pipeline_is_one_that_the_hub_lists() -> None:
    assert set(PIPELINES.values()) <= TASKS


def test_what_has_no_figure_is_no_result(table: Shipped) -> None:
    none = Figure(None)
    about = json.loads((table.folder / "student" / "student.json").read_text(encoding="utf-8"))
    for quality in ({}, {"accuracy": Quality(1, none, none, none)}):
        text = card(small_certificate(quality=quality), about, "bare")
        head = yaml.safe_load(text.split("---\n")[1])
        assert "model-index" not in head
        assert "metrics" not in head
        assert re.search(r"\b(nan|None|inf)\b", re.sub(r"```.*?```", "", text, flags=re.DOTALL)) is None


def test_the_data_are_named_by_the_file_that_the_recipe_names(table: Shipped) -> None:
    about = json.loads((table.folder / "student" / "student.json").read_text(encoding="utf-8"))
    names = []
    for recipe in ('data: table("../data/credit.csv.gz", label="y")\n', "data: mnist5k(test=0.4)\n", "data: <Data of: 3 rows>\n", ""):
        head = yaml.safe_load(card(small_certificate(), about, "x", recipe).split("---\n")[1])
        names.append(head["model-index"][0]["results"][0]["dataset"]["name"].removesuffix(" dddddddddddd"))
    assert names == ["credit.csv.gz", "mnist5k", "data", "data"]


# --- words


def test_verdicts_figures_limits_and_identity_are_in_it(table: Shipped) -> None:
    for said in (
        "**Did distillation help?** Yes: better than labels only. +0.0286 \\[+0.0194, +0.0378\\] accuracy over labels only, 5 seeds.",
        "Yes: worse by less than 0.005. −0.0012 \\[−0.0034, +0.0009\\]",
        "**Required: worse by less than 0.005.** Met.",
        "| log-loss, nats, less is better | 0.4300 \\[0.4200, 0.4400\\] |",
        "- another machine, and more than one thread",
        f"`{'s' * 32}`",
        f"`{'d' * 32}`",
        "| `probabilities` |",
        "age, days, amount, ratio, member",
        "Outcomes, in order: no, yes.",
    ):
        assert said in table.text, said


def test_hostile_texts_are_shown_and_are_no_markup(table: Shipped) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    about = json.loads((table.folder / "student" / "student.json").read_text(encoding="utf-8"))
    about["schema"]["classes"] = [EVIL, "- x", "1. y"]
    about["schema"]["columns"][0]["name"] = EVIL
    about["notes"] = [EVIL]
    c = small_certificate(limits=(EVIL, "- x", "# y", "---"), requirements=(Requirement(EVIL, "met", EVIL),))
    c = replace(c, identity={**c.identity, "machine": EVIL})
    text = card(c, about, EVIL, f"student: {EVIL}")
    assert yaml.safe_load(text.split("---\n")[1])["model-index"][0]["name"] == EVIL
    tokens = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).enable("table").parse(text.split("---\n", 2)[2])
    every = [child for token in tokens for child in (token, *(token.children or ()))]
    assert [t for t in every if t.type in ("html_inline", "html_block", "link_open", "image")] == [
        t for t in every if t.type == "html_block" and t.content.startswith("<!-- Written by attar")
    ]
    assert sum(t.type == "heading_open" for t in tokens) == 6
    assert sum("<script>alert(1)</script>" in t.content for t in every if t.type in ("text", "code_inline")) >= 6
    rows = [t for t in tokens if t.type == "bullet_list_open"]
    assert all(t.level == 0 for t in rows)  # no list within a list
    compile(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], "README.md", "exec")


@pytest.mark.parametrize(
    "text", ["plain", "a\\b", "- x", "+ 1", "# h", "=====", "12. x", "1) y", "www.x.org", "a  \n b", "~~s~~", "$x$", "&amp;"]
)
def test_an_escaped_text_reads_as_it_was(text: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    tokens = markdown_it.MarkdownIt("commonmark").parse(escaped(text))
    assert [t.type for t in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert "".join(child.content for child in tokens[1].children) == " ".join(text.split())


def test_a_code_span_holds_backticks_and_stands_in_a_table() -> None:
    assert code("a") == "`a`"
    assert code("``|") == "``` ``\\| ```"


# --- code


def test_the_code_of_a_table_runs_and_answers_as_the_folder_does(table: Shipped, monkeypatch: pytest.MonkeyPatch) -> None:
    names = table.ran(monkeypatch)
    schema = table.data.schema
    numbers = torch.tensor([[names["row"][c.name] for c in schema.numbers]])
    codes = torch.tensor([[c.categories.index(names["row"][c.name]) + 1 for c in schema.categories]])
    answer = onnx("student")(Batch({"numbers": numbers, "categories": codes}, schema=schema)).output
    np.testing.assert_allclose(names["probabilities"], answer.softmax(-1).numpy(), rtol=1e-5)


def test_the_code_of_images_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_images()
    torch.manual_seed(0)
    shipped = ship(tmp_path / "digits", SmallCNN(data.schema, 3), data)
    names = shipped.ran(monkeypatch)
    assert names["feeds"]["pixels"].shape == (1, 1, 8, 8)
    assert names["probabilities"].shape == (1, 3)
    assert shipped.head["pipeline_tag"] == "image-classification"
    assert "with pillow" in shipped.snippet


class Mean(nn.Module):
    """The mean of token vectors, then a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(8, 4), nn.Linear(4, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask.unsqueeze(-1).float()
        return self.head((self.table(input_ids) * real).sum(1) / real.sum(1).clamp(min=1))


def test_the_code_of_texts_reads_as_the_folder_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "A": 1, "text": 2, ".": 3, "the0": 4}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    data = small_texts()
    torch.manual_seed(0)
    reading = Tokens(made.to_str(), 8, kept=(0, 2, 3), unknown=0)  # "A" is not kept
    names = ship(tmp_path / "texts", TextModel(reading, Mean()), data).ran(monkeypatch)
    assert names["feeds"]["input_ids"].tolist() == [[0, 1, 2]]
    answer = onnx("student")(Batch({"text": Texts(["A text."])}, schema=data.schema)).output
    np.testing.assert_allclose(names["probabilities"], answer.softmax(-1).numpy(), rtol=1e-5)


def test_the_code_of_hashed_texts_to_embed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_pairs()
    torch.manual_seed(0)
    shipped = ship(tmp_path / "pairs", small_text_model(data.schema), data)
    assert shipped.ran(monkeypatch)["embeddings"].shape == (1, 8)
    assert shipped.head["pipeline_tag"] == "sentence-similarity"


# --- the folder


def test_a_card_that_somebody_wrote_is_left_alone(tmp_path: Path, table: Shipped) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "student.json").write_bytes((table.folder / "student" / "student.json").read_bytes())
    c: Certificate = small_certificate()
    assert write_card(c, tmp_path) == tmp_path / "README.md"
    assert write_card(c, tmp_path) == tmp_path / "README.md"  # its own it writes anew
    (tmp_path / "README.md").write_text("# Mine\n")
    assert write_card(c, tmp_path) is None
    assert (tmp_path / "README.md").read_text() == "# Mine\n"


def test_without_the_folder_of_the_student_there_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no model card without"):
        write_card(small_certificate(), tmp_path)


def test_the_code_asks_whether_the_student_may_answer_where_a_guard_was_fitted() -> None:
    about: dict[str, Any] = {"outputs": ["logits", "probabilities"], "task": "classification()"}
    assert not any("answer" in line for line in _asking(about))
    about["outputs"] += ["confidence", "answer"]
    assert any('["probabilities", "answer"]' in line for line in _asking(about))
