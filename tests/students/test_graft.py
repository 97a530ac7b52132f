"""A student on the teacher's head: what it keeps of it, what is learnt, what ships."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from attar import notation, objective, students
from attar.errors import StudentError
from attar.objective import Distiller, simkd, srrl
from attar.reading import Bags, TextModel
from attar.signal import Batch, Schema, Texts
from attar.sources import module
from attar.students import cnn, graft, mlp
from attar.tap import observe
from attar.task import classification
from attar.verbs.export.graph import from_torch

SCHEMA = Schema("images", shape=(1, 8, 8), classes=("a", "b", "c"))
TASK = classification().bind(SCHEMA)
TEACHER = cnn(width=8, depth=2)(SCHEMA, 0)
PIXELS = torch.randint(0, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
BATCH = Batch(PIXELS, labels=torch.tensor([0, 1, 2, 0, 1, 2]), schema=SCHEMA)


def grafted(output: Literal["teacher", "student"] = "teacher", factor: int = 2) -> nn.Module:
    return graft(cnn(width=2, depth=1), onto=TEACHER, output=output, factor=factor)(SCHEMA, 1)


def test_the_teachers_head_answers_what_the_projector_says():
    model = grafted().eval()
    seen = observe(model, BATCH, frozenset({"projected", "embedding"}))
    assert torch.equal(seen.output, TEACHER.get_submodule("head")(seen.taps["projected"]))
    assert seen.taps["embedding"].shape == (6, 2)


def test_of_the_teachers_head_nothing_is_learnt_and_the_teachers_own_is_left_alone():
    model = grafted().train()
    model(PIXELS).sum().backward()
    assert all(p.grad is None for p in model.get_submodule("head").parameters())
    assert all(p.grad is not None for p in model.get_submodule("projected").parameters())
    assert all(p.requires_grad for p in TEACHER.parameters())
    assert not model.get_submodule("head").training
    assert model.get_submodule("net").training


def test_simkd_brings_the_student_to_the_teachers_answer():
    model, source = grafted(factor=1), module(TEACHER.eval())
    goal = simkd()
    distiller = Distiller(model, goal).build(BATCH, source(BATCH, goal.teacher_taps))
    optimizer = torch.optim.Adam((p for p in distiller.parameters() if p.requires_grad), 1e-2)
    teacher, losses = source(BATCH, goal.teacher_taps), []
    for _ in range(200):
        loss = distiller(BATCH, teacher).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.02 * losses[0]
    assert torch.equal(model.eval()(PIXELS).argmax(1), teacher.output.argmax(1))
    assert not list(distiller.objective.parameters())


def test_srrl_sees_the_features_through_the_teachers_head():
    model, source = grafted("student"), module(TEACHER.eval())
    goal = srrl()
    loss = Distiller(model, goal).build(BATCH, source(BATCH, goal.teacher_taps))(BATCH, source(BATCH, goal.teacher_taps))
    loss.total.backward()
    assert set(loss.parts) == {"labels", "hint", "regrasp"}
    assert all(p.grad is not None for p in model.get_submodule("projected").parameters())
    assert all(p.grad is None for p in model.get_submodule("regrasped").parameters())
    seen = observe(model, BATCH, frozenset({"projected", "regrasped"}))
    assert torch.equal(seen.taps["regrasped"], TEACHER.get_submodule("head")(seen.taps["projected"]))
    inside = observe(model, BATCH, frozenset({"projected:in", "embedding"}))
    assert torch.equal(inside.taps["projected:in"], inside.taps["embedding"])


def test_the_exported_graph_has_neither_the_teachers_head_nor_a_projector_where_the_students_own_answers():
    model = grafted("student")
    graph, answer = from_torch(model, BATCH, TASK)
    with torch.no_grad():
        assert np.allclose(answer, model.eval()(PIXELS).numpy(), atol=1e-5)
    shapes = {tuple(sorted(t.dims)) for t in graph.graph.initializer}
    assert (2, 3) in shapes  # the student's head
    assert not {(2, 8), (8, 16), (3, 16)} & shapes  # the projector's layers, the teacher's head


def test_a_seed_gives_the_same_weights():
    one, same = (graft(cnn(width=2, depth=1), onto=TEACHER)(SCHEMA, 1) for _ in range(2))
    other = graft(cnn(width=2, depth=1), onto=TEACHER)(SCHEMA, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.get_parameter("projected.0.weight"), other.get_parameter("projected.0.weight"))


def test_the_teacher_may_be_a_source_or_a_builder():
    for onto in (module(TEACHER), cnn(width=8, depth=2)):
        model = graft(cnn(width=2, depth=1), onto=onto)(SCHEMA, 0)
        assert torch.equal(model.get_parameter("head.linear.weight"), TEACHER.get_parameter("head.linear.weight"))


def test_a_recipe_can_write_it():
    words = {name: getattr(students, name) for name in students.__all__ if name[0].islower()}
    text = 'graft(cnn(width=2, depth=1), onto=cnn(width=8, depth=2), output="student", factor=2)'
    assert repr(notation.read(text, words)) == text


def test_a_student_of_tables_is_grafted_too():
    schema = Schema("tensor", shape=(4,), classes=("no", "yes"))
    teacher = mlp(width=16, depth=2)(schema, 0)
    model = graft(mlp(width=4, depth=1), onto=teacher)(schema, 1)
    assert model(torch.randn(5, 4)).shape == (5, 2)


def test_numbers_are_answered_in_the_unit_of_the_label():
    schema = Schema("tensor", shape=(4,), label_mean=100.0, label_std=10.0)
    teacher = mlp(width=16, depth=2)(schema, 0)
    model = graft(mlp(width=4, depth=1), onto=teacher)(schema, 1).eval()
    assert 50 < float(model(torch.randn(50, 4)).detach().mean()) < 150
    with pytest.raises(StudentError, match="a unit of its own"):
        graft(mlp(width=4, depth=1), onto=torchvision_like())(schema, 1)


def torchvision_like(outcomes: int = 3) -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, outcomes)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.fc(inputs)

        def tap_names(self) -> dict[str, str]:
            return {"embedding": "fc:in"}

    return Net()


def test_a_student_that_reads_text_keeps_its_tokenizer():
    schema = Schema("text", texts=("text",), classes=("bad", "good"))
    teacher = TextModel(Bags(64), Bag(16))
    model = graft(lambda schema, seed: TextModel(Bags(64), Bag(4)), onto=teacher)(schema, 0)
    assert isinstance(model, TextModel)
    rows = Batch({"text": Texts(["a good film", "bad", "so so"])}, schema=schema)
    seen = observe(model, rows, frozenset({"projected"}))
    assert torch.equal(seen.output, teacher.get_submodule("net.head")(seen.taps["projected"]))
    branched = graft(lambda schema, seed: TextModel(Bags(64), Bag(4)), onto=teacher, output="student")(schema, 0)
    for student, goal in ((model, simkd()), (branched, srrl())):  # the same words as for images
        distiller = Distiller(student, goal).build(rows, module(teacher)(rows, goal.teacher_taps))
        assert float(distiller(rows, module(teacher)(rows, goal.teacher_taps)).total.detach()) > 0


class Bag(nn.Module):
    """The mean of n-grams' vectors, and a head that reads it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(65, width), nn.Linear(width, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        real = attention_mask[..., None].float()
        return self.head((self.table(input_ids) * real).sum(1) / real.sum(1).clamp(min=1))

    def tap_names(self) -> dict[str, str]:
        return {"embedding": "head:in"}


def test_a_teacher_of_other_outcomes_or_another_order_is_refused():
    schema = Schema("tensor", shape=(4,), classes=("a", "b", "c"))
    with pytest.raises(StudentError, match="answers 5 outcomes, the data have 3"):
        graft(mlp(), onto=torchvision_like(5))(schema, 0)
    with pytest.raises(StudentError, match="answers c, b, a, the data have a, b, c"):
        graft(mlp(), onto=module(torchvision_like(), classes=["c", "b", "a"]))(schema, 0)


def test_a_model_without_a_head_is_refused():
    class Headless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 3)

        def tap_names(self) -> dict[str, str]:
            return {"embedding": "body"}

    with pytest.raises(StudentError, match="no head that reads its embedding"):
        graft(mlp(), onto=Headless())(Schema("tensor", shape=(4,), classes=("a", "b", "c")), 0)


@pytest.mark.parametrize("how", [{"factor": 0}, {"output": "both"}])
def test_arguments_that_mean_nothing_are_refused(how):
    with pytest.raises(StudentError, match="graft"):
        graft(mlp(), onto=TEACHER, **how)


def test_the_words_of_its_methods_read_back():
    words = {name: getattr(objective, name) for name in objective.__all__ if name[0].islower()}
    for goal in (simkd(), srrl()):
        assert notation.read(repr(goal), words) == goal
