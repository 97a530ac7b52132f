"""Pretrained models of timm and torchvision as teachers: as their weights say, fine-tuned, frozen, tapped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from attar.errors import StudentError, TeacherError
from attar.loop import fit
from attar.notation import read
from attar.recipe import vocabulary
from attar.signal import Batch, Schema
from attar.sources import taught, timm, torchvision
from attar.sources.taught import Taught, TaughtNets
from attar.students import cnn
from attar.students import timm as student
from attar.testing.small import fitted, small_images
from attar.testing.sources import check_source
from attar.verbs.teach import teach

DATA = small_images(160)
SMALL = "test_resnet"
BIG = Schema("images", shape=(3, 160, 160), classes=("a", "b", "c"))


def kept(path: Path, builder, schema: Schema, seed: int = 0) -> str:
    """A file with weights of chance, as somebody else would have trained them."""
    save_file({n: v.contiguous() for n, v in builder(schema, seed).state_dict().items()}, path)
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return kept(tmp_path_factory.mktemp("weights") / "w.safetensors", student(SMALL), DATA.schema)


def test_a_pretrained_teacher_keeps_the_contract_of_sources(weights: str, tmp_path: Path) -> None:
    others = [
        timm(SMALL, weights=kept(tmp_path / "o.safetensors", student(SMALL), DATA.schema, 1), size=32),
        timm(SMALL, weights=weights, size=48),
        timm(SMALL, weights=weights, size=32, classes=["left", "above", "below"]),
    ]
    source = timm(SMALL, weights=weights, size=32)
    batch = DATA.test.batch(torch.arange(8))
    check_source(source, batch, outcomes=3, taps=["net.layer3", "head"], changed=lambda: others)


def test_it_answers_as_the_model_does_and_names_map_its_classes(weights: str) -> None:
    model = student(SMALL, weights=weights)(DATA.schema, 0).eval()
    batch = DATA.test.batch(torch.arange(8))
    with torch.no_grad():
        wanted = model(batch.inputs)
    assert torch.equal(timm(SMALL, weights=weights)(batch).output, wanted)
    mapped = timm(SMALL, weights=weights, classes=["left", "above", "below"])(batch).output
    assert torch.equal(mapped, wanted[:, [1, 2, 0]])  # the data's order is above, below, left


def test_a_teacher_of_numbers_answers_in_their_unit(tmp_path: Path) -> None:
    schema = replace(DATA.schema, classes=(), label_mean=700.0, label_std=20.0)
    path = kept(tmp_path / "w.safetensors", student(SMALL), schema, 4)
    batch = replace(DATA.test.batch(torch.arange(8)), labels=None, schema=schema)
    with torch.no_grad():
        wanted = student(SMALL)(schema, 4).eval()(batch.inputs)
    torch.testing.assert_close(timm(SMALL, weights=path)(batch).output, wanted)


def test_teacher_and_student_read_raw_pixels_each_in_its_own_way(tmp_path: Path) -> None:
    teacher = timm(SMALL, weights=kept(tmp_path / "a.safetensors", student(SMALL), DATA.schema))
    other = timm("test_efficientnet", weights=kept(tmp_path / "b.safetensors", student("test_efficientnet"), DATA.schema))
    batch = DATA.test.batch(torch.arange(4))
    assert isinstance(batch.inputs, torch.Tensor)
    seen = [source(batch, frozenset({"read"})).taps["read"] for source in (teacher, other)]
    raw = batch.inputs.float() / 255
    torch.testing.assert_close(seen[0][:, :1], (raw - 0.5) / 0.5)
    torch.testing.assert_close(seen[1][:, 1:2], (raw - 0.456) / 0.224)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: timm(SMALL), "has no weights: it knows nothing"),
        (lambda path: timm(SMALL, weights=path + "x"), "there is no file"),
        (lambda path: torchvision("shufflenet_v2_x0_5", weights=path), "does not fit torchvision"),
        (lambda path: timm("nobody", weights=path), "timm knows no model"),
    ],
)
def test_what_cannot_answer_is_a_teachers_error(make, match: str, weights: str) -> None:
    with pytest.raises(TeacherError, match=match):
        make(weights)(DATA.test.batch(torch.arange(2)))


def test_rows_that_are_no_images_and_classes_that_are_not_the_datas_are_refused(weights: str) -> None:
    source = timm(SMALL, weights=weights)
    with pytest.raises(TeacherError, match=r"is given the blocks \['numbers'\]"):
        source(Batch({"numbers": torch.zeros(2, 3)}))
    with pytest.raises(TeacherError, match="4"):
        source(replace(DATA.test.batch(torch.arange(2)), labels=None, schema=replace(DATA.schema, classes=tuple("abcd"))))


def test_a_model_of_one_size_refuses_others_unless_it_scales(tmp_path: Path) -> None:
    path = kept(tmp_path / "w.safetensors", student("test_vit"), BIG)
    batch = DATA.test.batch(torch.arange(2))
    with pytest.raises(TeacherError, match="reads 160 × 160 pixels and no others, it is given 8 × 8"):
        timm("test_vit", weights=path)(batch)
    assert timm("test_vit", weights=path, size=160)(batch).output.shape == (2, 3)


def test_a_recipe_fine_tunes_a_pretrained_teacher_by_the_same_word(tmp_path: Path) -> None:
    learned = fitted(student(SMALL, size=32)(DATA.schema, 0), DATA, steps=20)
    state = {n: v.contiguous() for n, v in learned.net.state_dict().items()}
    five = str(tmp_path / "five.safetensors")  # its head is for five other classes
    save_file({**state, "fc.weight": torch.zeros(5, learned.head.in_features), "fc.bias": torch.zeros(5)}, five)
    text = f'taught(timm("{SMALL}", weights="{five}", size=32, freeze=True), at="t.safetensors", folds=1)'
    name = read(text, vocabulary("teacher"))
    assert isinstance(name, Taught)
    assert repr(read(repr(name), vocabulary("teacher"))) == repr(name)
    source = teach(name, DATA, at=tmp_path / "t.safetensors", fit=fit(epochs=30, lr=0.02, threads=1))
    assert isinstance(source, TaughtNets)
    batch = DATA.test.batch(torch.arange(40))
    assert batch.labels is not None
    assert (source(batch).output.argmax(1) == batch.labels).float().mean() > 0.8
    own = source.members[0].state_dict()
    assert all(torch.equal(own[f"net.{name}"], value) for name, value in state.items())
    assert source(batch, frozenset({"embedding"})).taps["embedding"].shape == (40, learned.head.in_features)


def test_what_a_builder_objects_to_comes_before_anything_is_taught(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="there is no file"):
        name = taught(timm(SMALL, weights=str(tmp_path / "none.pth")), at="t.safetensors")
        teach(name, DATA, at=tmp_path / "t.safetensors", fit=fit(epochs=1, threads=1))
    assert taught(cnn(), at="t.safetensors").builder == cnn()
