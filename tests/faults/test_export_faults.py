"""Faults of exported folders, done for real: kill -9, a full disk, changed bytes, foreign graphs, other tables."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attar.data import Data
from attar.errors import DiskFull, ExportError, RunError, TeacherError, TrustError
from attar.signal import Batch, Column, Inputs
from attar.sources.onnx import onnx, read_manifest
from attar.task import classification
from attar.testing.small import SmallMLP, fitted, small_table
from attar.verbs.export import export

library = pytest.importorskip("onnx")
helper = library.helper
FLOAT = library.TensorProto.FLOAT


@pytest.fixture(scope="module")
def data() -> Data:
    return small_table(200)


@pytest.fixture(scope="module")
def student(data: Data) -> nn.Module:
    return fitted(SmallMLP(data.schema, width=4), data, steps=10)


@pytest.fixture(scope="module")
def exported(student: nn.Module, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(student, data, classification(), at=tmp_path_factory.mktemp("run") / "student").folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    copy = tmp_path / "student"
    copy.mkdir()
    for file in exported.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


# ── kill -9 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def child(work: Callable[[], Any]) -> int:
    """Do `work` in a forked process; its number."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def state(at: Path) -> str:
    """The digest of the graph that a reader of `at` gets; "none" if there is no folder. A half folder is an error."""
    if not at.exists():
        return "none"
    return read_manifest(at)["files"]["student.onnx"]["digest"]


def test_at_each_step_of_writing_the_disk_holds_the_old_folder_or_the_new(
    student: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = tmp_path / "run" / "student"
    old = state(export(student, data, classification(), at=at).folder)
    moments = 0

    def pausing(real: Callable[..., Any]) -> Callable[..., Any]:
        def pause(*args: Any) -> Any:  # what the disk holds now is what a kill now would leave
            nonlocal moments
            shutil.copytree(tmp_path / "run", tmp_path / f"moment {moments}")
            moments += 1
            return real(*args)

        return pause

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename"):  # every write of export ends in one of the two
            patch.setattr(os, name, pausing(getattr(os, name)))
        new = state(export(SmallMLP(data.schema, seed=1, width=4), data, classification(), at=at).folder)
    seen = [state(tmp_path / f"moment {i}" / "student") for i in range(moments)]
    assert new != old
    assert seen[0] == old
    assert set(seen) == {old, "none", new}
    assert seen == sorted(seen, key=[old, "none", new].index)
    assert seen.count("none") == 1  # between two renames; the next export finds what was there before, and puts it back first
    between = tmp_path / f"moment {seen.index('none')}"
    with pytest.raises(ExportError):
        export(Diverged(data.schema), data, classification(), at=between / "student")
    assert state(between / "student") == old
    assert [p.name for p in between.iterdir()] == ["student"]


class Diverged(SmallMLP):
    def forward(self, inputs: Inputs) -> Tensor:
        return super().forward(inputs) * float("nan")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_a_random_moment_is_mended_by_exporting_again(student: nn.Module, data: Data, tmp_path: Path) -> None:
    at = tmp_path / "student"
    start = time.perf_counter()
    new = state(export(student, data, classification(), at=tmp_path / "new").folder)
    lasts = time.perf_counter() - start
    chance = random.Random(0)
    for _ in range(3):
        pid = child(lambda: export(student, data, classification(), at=at))
        time.sleep(chance.random() * lasts)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert state(at) in (new, "none")
    export(student, data, classification(), at=at)
    assert state(at) == new
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "student"]


# ── a full disk ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 KB."""
    at = tmp_path / "disk"
    at.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(at)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def test_a_full_disk_is_told_and_leaves_nothing_behind(student: nn.Module, data: Data, small_disk: Path) -> None:
    with pytest.raises(DiskFull, match=r"the disk is full while writing .*student"):
        export(student, data, classification(), at=small_disk / "student")
    assert list(small_disk.iterdir()) == []


# ── a folder that is not what it was ──────────────────────────────────────────────────────────────────────────────────


def test_a_changed_graph_is_named_with_both_digests(folder: Path) -> None:
    path = folder / "student.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TeacherError, match=r"student\.onnx was changed after export: digest [0-9a-f]{12}…, expected [0-9a-f]{12}…"):
        onnx(str(folder))


def test_a_missing_graph_is_named(folder: Path) -> None:
    (folder / "student.int8.onnx").unlink()
    with pytest.raises(TeacherError, match=r"student\.int8\.onnx is missing"):
        onnx(str(folder))


def test_a_manifest_edited_by_hand_is_refused(folder: Path) -> None:
    path = folder / "student.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    said["certified"] = "student.int8.onnx"
    path.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(TeacherError, match="changed after export: its digest does not fit"):
        onnx(str(folder))


@pytest.mark.parametrize(("content", "says"), [("{", "does not read"), ("[]", "version None"), ('{"schema_version": 99}', "version 99")])
def test_a_manifest_that_does_not_read_is_refused(folder: Path, content: str, says: str) -> None:
    (folder / "student.json").write_text(content, encoding="utf-8")
    with pytest.raises(TeacherError, match=says):
        onnx(str(folder))


def test_a_folder_without_a_manifest_is_no_student(folder: Path) -> None:
    (folder / "student.json").unlink()
    with pytest.raises(TeacherError, match=r"it has no student\.json") as error:
        onnx(str(folder))
    assert "student.int8.onnx" in error.value.hint
    with pytest.raises(TeacherError, match="no such file or folder"):
        onnx(str(folder / "teacher.onnx"))


def test_export_does_not_replace_a_folder_of_other_things(student: nn.Module, data: Data, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work", encoding="utf-8")
    with pytest.raises(RunError, match=r"holds other things: thesis\.txt"):
        export(student, data, classification(), at=tmp_path)
    with pytest.raises(RunError, match="is a file"):
        export(student, data, classification(), at=tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "ten years of work"


# ── graphs that must not be opened ────────────────────────────────────────────────────────────────────────────────────


def model(path: Path, node: Any, weights: Any = None) -> str:
    made = helper.make_graph(
        [node],
        "toy",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", FLOAT, ["batch", 2])],
        [] if weights is None else [weights],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("evil.corp", 1)]
    path.write_bytes(helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString())
    return str(path)


def external(location: str) -> Any:
    weights = library.numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    weights.ClearField("raw_data")
    weights.data_location = library.TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", location
    return weights


def test_custom_operators_are_refused_by_name(tmp_path: Path) -> None:
    path = model(tmp_path / "g.onnx", helper.make_node("RunAnything", ["x"], ["y"], domain="evil.corp"))
    with pytest.raises(TrustError, match="custom operators: evil.corp::RunAnything"):
        onnx(path)


def test_custom_operators_in_a_branch_are_refused_too(tmp_path: Path) -> None:
    out = helper.make_tensor_value_info("z", FLOAT, ["batch", 2])
    branch = helper.make_graph([helper.make_node("RunAnything", ["x"], ["z"], domain="evil.corp")], "branch", [], [out])
    path = model(tmp_path / "g.onnx", helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    with pytest.raises(TrustError, match="evil.corp::RunAnything"):
        onnx(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "", "sub/../../weights.bin"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    (tmp_path / "model").mkdir()
    path = model(tmp_path / "model" / "g.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]), external(location))
    with pytest.raises(TrustError, match="outside its folder"):
        onnx(path)


def test_a_link_that_leads_outside_is_outside(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w.bin").symlink_to(tmp_path / "weights.bin")
    path = model(tmp_path / "model" / "g.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]), external("w.bin"))
    with pytest.raises(TrustError, match="outside its folder"):
        onnx(path)


def test_weights_beside_the_graph_are_read_and_count_in_its_fingerprint(tmp_path: Path) -> None:
    path = model(tmp_path / "g.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]), external("w.bin"))
    with pytest.raises(TeacherError, match=r"'w\.bin', which is missing"):
        onnx(path)
    (tmp_path / "w.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    first = onnx(path)
    batch = Batch({"numbers": torch.tensor([[3.0, 4.0]])})
    assert first(batch).output.tolist() == [[3.0, 4.0]]
    (tmp_path / "w.bin").write_bytes((2 * np.eye(2, dtype=np.float32)).tobytes())
    second = onnx(path)
    assert second(batch).output.tolist() == [[6.0, 8.0]]
    assert second.fingerprint != first.fingerprint


def test_bytes_that_are_no_graph_are_refused(tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(b"hello world, this is no graph")
    with pytest.raises(TeacherError, match="is not an ONNX file, or a damaged one"):
        onnx(str(tmp_path / "g.onnx"))
    path = model(tmp_path / "h.onnx", helper.make_node("NoSuchOperator", ["x"], ["y"]))
    with pytest.raises(TeacherError, match="cannot be opened"):
        onnx(path)


# ── tables that are not the student's ─────────────────────────────────────────────────────────────────────────────────


def test_a_column_the_student_did_not_see_at_export_is_named(exported: Path, data: Data) -> None:
    source = onnx(str(exported))
    more = replace(data.schema, columns=(*data.schema.columns, Column("income", "number")))
    with pytest.raises(TeacherError, match="column 'income' was not there when the student of student was made"):
        source.check(more)
    batch = data.test.batch(torch.arange(3))
    assert not isinstance(batch.inputs, torch.Tensor)
    wider = {**batch.inputs, "numbers": torch.cat((batch.inputs["numbers"], torch.ones(3, 1)), 1)}
    with pytest.raises(TeacherError, match="column 'income'"):
        source(replace(batch, inputs=wider, schema=more))


def test_a_column_that_is_gone_is_named(exported: Path, data: Data) -> None:
    fewer = replace(data.schema, columns=tuple(c for c in data.schema.columns if c.name != "amount"))
    with pytest.raises(TeacherError, match="column 'amount', which the student of student reads, is missing"):
        onnx(str(exported)).check(fewer)


def test_a_column_that_was_renamed_is_guessed(exported: Path, data: Data) -> None:
    columns = tuple(replace(c, name="amounts") if c.name == "amount" else c for c in data.schema.columns)
    with pytest.raises(TeacherError, match="'amounts' was not there") as error:
        onnx(str(exported)).check(replace(data.schema, columns=columns))
    assert error.value.hint == "was 'amount' renamed? did you mean 'amounts'?"


def test_a_column_that_changed_its_kind_is_named(exported: Path, data: Data) -> None:
    columns = tuple(replace(c, kind="category", categories=("1", "2")) if c.name == "days" else c for c in data.schema.columns)
    with pytest.raises(TeacherError, match="column 'days' is a category here, and was a number"):
        onnx(str(exported)).check(replace(data.schema, columns=columns))
