"""The self-test finds each broken convention, and trips over none that is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attar import functional
from attar.errors import ObjectiveError, StoreError, TeacherError
from attar.objective import (
    Objective,
    Term,
    as_objective,
    blend,
    cosine,
    embedding_mse,
    jsd,
    kl,
    labels,
    list_kl,
    margin_mse,
    mse,
    ramp,
    similarity_kl,
    similarity_mse,
    total_variation,
)
from attar.objective.conventions import Check, Conventions, check
from attar.objective.terms import Divergence
from attar.signal import IGNORE, NOTHING, Batch, Schema, Signal
from attar.task import classification, embedding, multilabel, regression

CLASSES = 4
TASK = classification().bind(Schema("tensor", classes=tuple("abcd")))


def rows(n: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, CLASSES, generator=g)
    return x, (x + 0.7 * torch.randn(n, CLASSES, generator=g)).argmax(-1)


class Teacher:
    """A source that answers with a function of the inputs."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        self.answer, self.fingerprint = answer, "teacher"

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        assert isinstance(batch.inputs, Tensor)
        return Signal(self.answer(batch.inputs))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        return lambda: self(batch)


def good(x: Tensor) -> Tensor:
    return 2 * x


X, Y = rows()
BATCH = Batch(X, labels=Y, ids=torch.arange(len(X)))


def student(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(CLASSES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))


def run(
    answer: Callable[[Tensor], Tensor] = good, goal: Term | Objective | None = None, batch: Batch = BATCH, stored: Signal | None = None
) -> Conventions:
    return check(goal or blend(kl(temperature=2), labels(), weight=0.9), student(), Teacher(answer), batch, TASK, stored)


def the(name: str, conventions: Conventions) -> Check:
    return next(c for c in conventions.checks if c.name == name)


def test_what_is_right_passes_every_check():
    found = run(stored=Signal(good(X).half().float()))
    assert found.ok
    assert [c.verdict for c in found.checks] == ["ok"] * 7, "\n".join(found.lines())
    assert [c.name for c in found.checks] == [
        "teacher frozen",
        "store aligned",
        "class order",
        "kl at equality",
        "kl temperature",
        "weights",
        "balance",
    ]
    found.raise_if_failed()


def test_the_findings_are_fit_for_a_terminal_and_a_manifest():
    found = run(lambda x: good(x)[:, [1, 0, 2, 3]])
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["ok"] is False
    assert len(found.lines()) == len(found.checks)
    assert sum(line.startswith("✗") for line in found.lines()) == 1


def test_nothing_given_is_changed():
    net, goal = student(), as_objective(kl())
    before = {name: t.clone() for name, t in net.state_dict().items()}
    random = torch.get_rng_state()
    check(goal, net, Teacher(good), BATCH, TASK)
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert net.training
    assert goal.task is None
    assert all(p.grad is None for p in net.parameters())


# --- the teacher


def test_a_teacher_with_dropout_left_on_is_found():
    found = run(lambda x: nn.functional.dropout(good(x), 0.5, training=True))
    with pytest.raises(TeacherError, match="asked twice, differ"):
        found.raise_if_failed()


def test_a_teacher_with_batch_statistics_left_on_is_found():
    with pytest.raises(TeacherError, match="half a batch"):
        run(lambda x: good(x) - x.mean(0)).raise_if_failed()


def test_a_teacher_that_keeps_a_gradient_is_found():
    weight = torch.ones((), requires_grad=True)
    with pytest.raises(TeacherError, match="carry a gradient"):
        run(lambda x: good(x) * weight).raise_if_failed()


def test_a_teacher_that_learns_while_it_answers_is_found():
    teacher = Teacher(good)
    asked = []

    def answer(x: Tensor) -> Tensor:
        asked.append(1)
        teacher.fingerprint = f"teacher after {len(asked)}"
        return good(x)

    teacher.answer = answer
    assert the("teacher frozen", check(kl(), student(), teacher, BATCH, TASK)).text == "asking changed its fingerprint"


# --- the store


def test_answers_of_other_rows_in_the_store_are_found():
    shifted = good(X).roll(1, 0)
    with pytest.raises(StoreError, match="200 of 200 rows"):
        run(stored=Signal(shifted)).raise_if_failed()


def test_one_wrong_row_in_the_store_is_found():
    stored = good(X).clone()
    stored[7, 2] += 0.1
    with pytest.raises(StoreError, match="1 of 200 rows"):
        run(stored=Signal(stored)).raise_if_failed()


def test_stored_infinities_are_equal_to_live_ones():
    def absent(x: Tensor) -> Tensor:
        return torch.cat((good(x)[:, :3], torch.full((len(x), 1), -torch.inf)), -1)

    found = run(absent, stored=Signal(absent(X)))
    assert the("store aligned", found).verdict == "ok"
    assert the("kl at equality", found).verdict == "ok"


def test_a_store_of_another_shape_is_found():
    assert the("store aligned", run(stored=Signal(good(X)[:50]))).verdict == "failed"


# --- the class order


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [1, 2, 3, 0], [3, 2, 1, 0]])
def test_outcomes_in_another_order_are_found(order):
    found = the("class order", run(lambda x: good(x)[:, order]))
    assert found.verdict == "failed"
    assert f"0→{order.index(0)}" in found.text


def test_the_two_outcomes_of_a_binary_teacher_exchanged_are_found():
    binary = Batch(X, labels=(Y >= 2).long())
    task = classification().bind(Schema("tensor", classes=("no", "yes")))
    for sign, verdict in ((1, "ok"), (-1, "failed")):
        teacher = Teacher(lambda x, s=sign: s * (x[:, 2:].amax(-1) - x[:, :2].amax(-1)))
        assert the("class order", check(labels(), nn.Linear(CLASSES, 1), teacher, binary, task)).verdict == verdict


def test_a_teacher_that_knows_nothing_is_not_taken_for_a_swapped_one():
    noise = [torch.randn(200, CLASSES, generator=torch.Generator().manual_seed(s)) for s in range(100)]
    alarms = sum(the("class order", run(lambda x, z=z: z[: len(x)], labels())).verdict == "failed" for z in noise)
    assert alarms == 0  # level 0.001


def test_a_mediocre_teacher_that_prefers_one_outcome_is_not_taken_for_a_swapped_one():
    """Trained on another balance: it says the last class most of the time, whatever the label, and yet ranks rightly."""
    tilted = the("class order", run(lambda x: 0.3 * x + torch.tensor([0.0, 0.0, 0.0, 4.0])))
    assert tilted.verdict == "ok"


def test_rare_positives_and_a_balanced_teacher_are_not_taken_for_a_swap():
    g = torch.Generator().manual_seed(3)
    x = torch.randn(2000, 1, generator=g)
    y = (x[:, 0] + torch.randn(2000, generator=g) > 2.6).long()
    task = classification().bind(Schema("tensor", classes=("no", "yes")))
    found = check(labels(), nn.Linear(1, 1), Teacher(lambda x: 0.2 * x[:, 0] + 0.5), Batch(x, labels=y), task)
    assert y.float().mean() < 0.06
    assert the("class order", found).verdict == "ok"


def test_many_classes_with_two_exchanged_are_found():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 30, (900,), generator=g)
    logits = 3 * nn.functional.one_hot(y, 30) + torch.randn(900, 30, generator=g)
    task = classification().bind(Schema("tensor", classes=tuple(str(i) for i in range(30))))
    order = list(range(30))
    order[4], order[17] = 17, 4
    net = nn.Linear(30, 30)
    assert the("class order", check(labels(), net, Teacher(lambda x: x), Batch(logits, labels=y), task)).verdict == "ok"
    swapped = the("class order", check(labels(), net, Teacher(lambda x: x[:, order]), Batch(logits, labels=y), task))
    assert swapped.verdict == "failed"
    assert "4→17, 17→4" in swapped.text


@pytest.mark.parametrize("batch", [Batch(X), Batch(X[:10], labels=torch.arange(10) % 4)])
def test_too_few_labels_tell_nothing_about_the_order(batch):
    assert the("class order", run(batch=batch)).verdict == "skipped"


def test_without_any_label_it_says_so():
    nobody = Batch(X, labels=torch.full((len(X),), IGNORE))
    assert the("class order", run(goal=kl(), batch=nobody)).text == "no row has a label"


# --- the objective


def test_every_divergence_has_its_temperature_in_place():
    for word in (kl, jsd, total_variation):
        found = the(f"{word().word} temperature", run(goal=word() + labels()))
        assert found.verdict == "ok"
        assert found.values["ratio"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("order", "ratio"), [(0, 4), (1, 2), (4, 0.25)])
def test_a_wrong_power_of_the_temperature_is_found(order, ratio):
    wrong = Divergence("mine", functional.kl, temperature=2, order=order)
    found = the("mine temperature", run(goal=as_objective(wrong)))
    assert found.verdict == "failed"
    assert found.values["ratio"] == pytest.approx(ratio, rel=0.02)


def test_a_loss_that_is_not_zero_at_equality_is_found():
    crossed = Divergence("crossed", lambda log_p, log_q: -(log_p.exp() * log_q).sum(-1), temperature=2)  # cross-entropy: H(p) too much
    with pytest.raises(ObjectiveError, match="where the student answers as the teacher"):
        run(goal=as_objective(crossed)).raise_if_failed()


def test_a_term_lost_beside_the_others_is_warned_of():
    found = run(goal=1e-5 * kl() + labels())
    assert the("balance", found).verdict == "warning"
    assert "kl hardly pulls" in the("balance", found).text
    assert found.ok


@pytest.mark.parametrize(("goal", "said"), [(lambda: 0 * kl(), "nothing to learn"), (lambda: kl() + -0.5 * labels(), "labels weighs -0.5")])
def test_weights_that_teach_nothing_or_the_contrary_are_found(goal: Callable[[], Objective], said: str):
    found = the("weights", run(goal=goal()))
    assert found.verdict == "failed"
    assert said in found.text


def test_a_ramp_counts_at_its_larger_end():
    assert the("balance", run(goal=ramp(0, 1) * kl() + ramp(1, 0) * labels())).verdict == "ok"


def test_the_balance_is_the_ratio_of_gradient_norms_at_the_weights():
    net = student().eval()
    goal = 0.5 * mse() + labels()
    shares = the("balance", check(goal, net, Teacher(good), BATCH, TASK)).values
    norms = {}
    for name, term in (("mse", 0.5 * mse()), ("labels", as_objective(labels()))):
        z = Signal(net(X))
        total = term.build(z, Signal(good(X)), TASK)(z, Signal(good(X)), BATCH).total
        norms[name] = torch.cat([g.flatten() for g in torch.autograd.grad(total, list(net.parameters()))]).norm()
    assert shares["mse"] / shares["labels"] == pytest.approx(float(norms["mse"] / norms["labels"]), rel=1e-4)


def test_without_a_teacher_only_weights_and_balance_are_looked_at():
    found = check(labels(), student(), None, BATCH, TASK)
    assert [(c.name, c.verdict) for c in found.checks] == [("weights", "ok"), ("balance", "skipped")]


def test_regression_and_multi_label_have_conventions_too():
    number = regression().bind(Schema("tensor"))
    found = check(blend(mse(), labels()), nn.Linear(CLASSES, 1), Teacher(lambda x: x.sum(-1)), Batch(X, labels=X[:, 0]), number)
    assert found.ok
    assert the("class order", found).text == "not for regression"
    several = multilabel().bind(Schema("tensor", classes=tuple("abcd")))
    batch = Batch(X, labels=(X > 0).long())
    assert check(blend(kl(), labels()), nn.Linear(CLASSES, CLASSES), Teacher(good), batch, several).ok


def test_a_teacher_of_other_classes_is_refused_by_the_task():
    with pytest.raises(ObjectiveError, match=r"\(200, 3\)"):
        run(lambda x: x[:, :3])


@pytest.mark.parametrize("goal", [cosine(), embedding_mse(), mse(), similarity_mse(), similarity_kl(), margin_mse(), list_kl()])
@pytest.mark.parametrize("all_there", [True, False])
def test_vectors_have_no_order_of_classes_and_texts_that_are_not_there_agree(goal: Term, all_there: bool):
    net = nn.Linear(5, 6)
    inputs = torch.randn(40, 3, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(40, 3, dtype=torch.bool)
    mask[:7, 2] = all_there

    def vectors(weight: Tensor, x: Tensor) -> Tensor:
        return (x @ weight.T) * mask[: len(x)].unsqueeze(-1)

    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return vectors(self.net.weight, x)

    theirs = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    batch = Batch(inputs, labels=torch.rand(40), mask=None if all_there else mask)
    task = embedding().bind(Schema("text", texts=("a", "b", "c"), embeds=True))
    found = check(goal, Student(), Teacher(lambda x: vectors(theirs, x)), batch, task)
    assert found.ok, found.lines()
    assert named(found)["class order"].verdict == "skipped"
    assert named(found)[f"{goal.word} at equality"].verdict == "ok"


def test_a_projector_between_the_two_is_no_broken_equality():
    batch = Batch(torch.randn(40, 1, 5))
    task = embedding().bind(Schema("text", texts=("a",), embeds=True))
    wide = torch.randn(9, 5)
    found = check(cosine(), nn.Linear(5, 6), Teacher(lambda x: x @ wide.T), batch, task)
    assert found.ok
    assert "cosine at equality" not in named(found)


def named(found: Conventions) -> dict[str, Check]:
    return {one.name: one for one in found.checks}
