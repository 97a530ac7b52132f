"""The algebra of terms, the one mean, the Distiller, and objectives that a cohort runs as one."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from attar import notation, objective
from attar.errors import ObjectiveError, StudentError
from attar.objective import Distiller, Objective, Term, as_objective, blend, jsd, kl, labels, mse, ramp, reverse_kl
from attar.signal import IGNORE, Batch, Schema, Signal
from attar.task import classification, multilabel, regression

WORDS = {name: getattr(objective, name) for name in objective.__all__ if name[0].islower()}
CLASSES = classification().bind(Schema("tensor", classes=("a", "b", "c", "d")))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STUDENT, TEACHER = Signal(random(6, 4, seed=1)), Signal(random(6, 4, seed=2))
Y = torch.tensor([0, 1, 2, 3, 0, 1])
BATCH = Batch(random(6, 3), labels=Y)


def value(goal: Term | Objective, batch: Batch = BATCH, student: Signal = STUDENT, teacher: Signal | None = TEACHER, progress: float = 1.0):
    return as_objective(goal).build(student, teacher, CLASSES)(student, teacher, batch, progress)


# --- the algebra


def test_the_objective_is_the_handwritten_loss():
    z, t = STUDENT.output, TEACHER.output
    by_hand = 0.9 * 16 * kl_div(log_softmax(z / 4, -1), log_softmax(t / 4, -1), reduction="batchmean", log_target=True)
    by_hand = by_hand + 0.1 * cross_entropy(z, Y)
    assert torch.isclose(value(0.9 * kl(temperature=4) + 0.1 * labels()).total, by_hand)
    assert torch.isclose(value(blend(kl(temperature=4), labels(), weight=0.9)).total, by_hand)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (0.9 * kl(temperature=4) + 0.1 * labels(), "0.9 * kl(temperature=4.0) + 0.1 * labels(smoothing=0.0)"),
        (blend(kl(), labels(), weight=0.9), "0.9 * kl(temperature=2.0) + 0.1 * labels(smoothing=0.0)"),
        (kl() + labels(), "kl(temperature=2.0) + labels(smoothing=0.0)"),
        (-kl() * 0.5 + 2 * mse(), "-0.5 * kl(temperature=2.0) + 2.0 * mse()"),
        (2 * (kl() + 3 * mse()), "2.0 * kl(temperature=2.0) + 6.0 * mse()"),
        (ramp(0, 1, until=0.5) * jsd(beta=0.1), "ramp(start=0.0, stop=1.0, until=0.5) * jsd(beta=0.1, temperature=2.0)"),
        (
            blend(kl(), labels(), weight=ramp(1, 0)),
            "ramp(start=1.0, stop=0.0, until=1.0) * kl(temperature=2.0) + ramp(start=0.0, stop=1.0, until=1.0) * labels(smoothing=0.0)",
        ),
        (torch.tensor(0.9) * kl(temperature=torch.tensor(3.3)), "0.9 * kl(temperature=3.3)"),
    ],
)
def test_the_text_of_an_objective_reads_back_to_it(made, text):
    assert repr(made) == text
    again = notation.read(text, WORDS)
    assert again == made
    assert torch.equal(value(again).total, value(made).total.to(torch.float64)) or torch.allclose(value(again).total, value(made).total)


@pytest.mark.parametrize("task", [classification(), multilabel(), regression()])
def test_the_default_objective_of_a_task_reads(task):
    assert isinstance(notation.read(task.objective, WORDS), Objective)


def test_addition_and_scaling_are_linear():
    a, b = value(kl()).total, value(mse()).total
    assert torch.isclose(value(3 * (kl() + 2 * mse())).total, 3 * a + 6 * b)
    assert torch.isclose(value(ramp(0, 1) * kl() + mse(), progress=0.25).total, 0.25 * a + b)


def test_equality_is_of_the_text_and_hashes_are_of_the_module():
    assert kl() == kl()
    assert kl() != kl(temperature=3)
    assert as_objective(kl()) == kl()
    twins = kl() + kl()
    assert len(set(twins.terms)) == 2
    assert sum(isinstance(m, Term) for m in twins.modules()) == 2  # neither was taken for the other


def test_parts_are_the_terms_by_name_without_weight_and_gradient():
    z = Signal(STUDENT.output.clone().requires_grad_())
    loss = value(0.5 * kl() + 0.2 * kl(temperature=4) + labels(), student=z)
    assert list(loss.parts) == ["kl", "kl_2", "labels"]
    assert torch.equal(loss.parts["kl_2"], value(kl(temperature=4)).total)
    assert not any(part.requires_grad for part in loss.parts.values())
    assert loss.total.requires_grad


def test_what_is_not_a_term_does_not_add_or_scale():
    with pytest.raises(TypeError):
        _ = kl() + 1  # pyright: ignore[reportOperatorIssue] the point of the test
    with pytest.raises(TypeError):
        _ = kl() * "2"  # pyright: ignore[reportOperatorIssue] the point of the test
    with pytest.raises(TypeError):
        _ = kl() * labels()  # pyright: ignore[reportOperatorIssue] the point of the test
    with pytest.raises(ObjectiveError, match="not a term or a sum of terms"):
        as_objective(0.5)  # pyright: ignore[reportArgumentType] the point of the test


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_a_blend_is_a_share(weight):
    with pytest.raises(ObjectiveError, match="not a share"):
        blend(kl(), labels(), weight=weight)


@pytest.mark.parametrize(
    "make",
    [
        lambda: kl(temperature=0),
        lambda: kl(temperature=-1),
        lambda: kl(temperature=float("inf")),
        lambda: jsd(beta=1.5),
        lambda: labels(1.0),
    ],
)
def test_arguments_out_of_range_are_refused(make):
    with pytest.raises(ObjectiveError):
        make()


def test_an_objective_survives_copy_and_pickle():
    goal = blend(kl(temperature=torch.tensor(2.0)), labels(), weight=torch.tensor(0.9))
    for again in (copy.deepcopy(goal), pickle.loads(pickle.dumps(goal))):
        assert again == goal
        assert torch.equal(value(again).total, value(goal).total)
        again.knobs[0].value.fill_(0.5)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue] ModuleList forgets its type
        assert repr(again).startswith("0.5 * kl(temperature=2.0) + 0.5")
        assert repr(goal).startswith("0.9")


# --- the one mean


def test_row_weights_are_relative():
    weight = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0, 1.0])
    rows = [value(kl(), Batch(BATCH.inputs), Signal(STUDENT.output[i : i + 1]), Signal(TEACHER.output[i : i + 1])).total for i in range(6)]
    expected = (torch.stack(rows) * weight).sum() / weight.sum()
    for scale in (1.0, 1e-3, 1e3):
        batch = Batch(BATCH.inputs, labels=Y, weight=weight * scale)
        assert torch.isclose(value(kl(), batch).total, expected, rtol=1e-6)


def test_a_row_of_weight_zero_is_a_row_that_is_not_there():
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0, 1.0])
    keep = weight != 0
    spoiled = STUDENT.output.clone()
    spoiled[2] = float("nan")
    z = Signal(spoiled.requires_grad_())
    goal = kl() + labels() + mse()
    with_it = value(goal, Batch(BATCH.inputs, labels=Y, weight=weight), z)
    without = value(
        goal,
        Batch(BATCH.inputs, labels=Y[keep], weight=weight[keep]),
        Signal(STUDENT.output[keep]),
        Signal(TEACHER.output[keep]),
    )
    assert torch.isclose(with_it.total, without.total)
    with_it.total.backward()
    assert z.output.grad is not None
    assert (z.output.grad[2] == 0).all()
    assert torch.isfinite(z.output.grad).all()


def test_unlabelled_rows_take_no_part_in_labels_and_teach_through_the_rest():
    half = torch.tensor([0, 1, IGNORE, IGNORE, 0, IGNORE])
    batch = Batch(BATCH.inputs, labels=half)
    loss = value(kl() + labels(), batch)
    assert torch.isclose(loss.parts["labels"], cross_entropy(STUDENT.output[[0, 1, 4]], half[[0, 1, 4]]))
    assert torch.equal(loss.parts["kl"], value(kl()).total)


@pytest.mark.parametrize("labels_", [None, torch.full((6,), IGNORE)])
def test_a_batch_without_labels_costs_nothing_by_labels_and_pulls_nowhere(labels_):
    z = Signal(STUDENT.output.clone().requires_grad_())
    loss = value(labels(smoothing=0.1), Batch(BATCH.inputs, labels=labels_), z)
    loss.total.backward()
    assert float(loss.total.detach()) == 0
    assert z.output.grad is not None
    assert (z.output.grad == 0).all()


@pytest.mark.parametrize(
    "nothing",
    [
        {"mask": torch.zeros(6, dtype=torch.bool)},
        {"weight": torch.zeros(6)},
        {"mask": torch.zeros(6, dtype=torch.bool), "weight": torch.ones(6)},
    ],
)
def test_where_nothing_counts_the_loss_is_zero_and_so_is_the_gradient(nothing):
    z = Signal(STUDENT.output.clone().requires_grad_())
    loss = value(kl() + labels() + mse(), Batch(BATCH.inputs, labels=Y, **nothing), z)
    loss.total.backward()
    assert float(loss.total.detach()) == 0
    assert z.output.grad is not None
    assert (z.output.grad == 0).all()


def test_mask_weight_and_known_labels_count_together():
    """(B, S) positions: Σ w m k ℓ / Σ w m k by a loop."""
    z, t = random(3, 5, 4, seed=3), random(3, 5, 4, seed=4)
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) < 0.7
    weight = torch.tensor([1.0, 2.0, 0.5])
    y = torch.randint(0, 4, (3, 5), generator=torch.Generator().manual_seed(1))
    y[0, :3] = IGNORE
    loss = value(kl(temperature=1) + labels(), Batch(torch.zeros(3, 1), labels=y, mask=mask, weight=weight), Signal(z), Signal(t))
    sums = {"kl": [0.0, 0.0], "labels": [0.0, 0.0]}
    for b in range(3):
        for s in range(5):
            if not mask[b, s]:
                continue
            log_p, log_q = log_softmax(t[b, s], -1), log_softmax(z[b, s], -1)
            sums["kl"][0] += float(weight[b] * (log_p.exp() * (log_p - log_q)).sum())
            sums["kl"][1] += float(weight[b])
            if y[b, s] != IGNORE:
                sums["labels"][0] -= float(weight[b] * log_q[y[b, s]])
                sums["labels"][1] += float(weight[b])
    for name, (total, counted) in sums.items():
        assert float(loss.parts[name]) == pytest.approx(total / counted)


class Flat(Term):
    """One number for each row of several positions."""

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        return student.output.mean((-1, -2))

    def __repr__(self) -> str:
        return "flat()"


def test_a_number_for_a_row_counts_where_any_position_of_it_does_and_the_mean_is_over_rows():
    z = torch.tensor([1.0, 3.0, 50.0])[:, None, None].expand(3, 2, 4)
    mask = torch.tensor([[True, True], [True, True], [False, False]])
    loss = value(Flat(), Batch(torch.zeros(3, 1), mask=mask), Signal(z), Signal(z))
    assert float(loss.total) == 2.0


def test_micro_batches_of_equal_size_accumulate_to_the_whole():
    z = STUDENT.output.clone().requires_grad_()
    goal = blend(kl(), labels(), weight=0.7)
    (whole,) = torch.autograd.grad(value(goal, student=Signal(z)).total, z)
    for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):
        part = value(goal, Batch(BATCH.inputs, labels=Y[rows]), Signal(z[rows]), Signal(TEACHER.output[rows]))
        (part.total / 3).backward()
    assert z.grad is not None
    assert torch.allclose(z.grad, whole)


# --- refusals


def test_an_objective_is_built_before_it_is_used():
    with pytest.raises(ObjectiveError, match="has not been built"):
        as_objective(kl())(STUDENT, TEACHER, BATCH)


def test_a_term_that_needs_a_teacher_says_so():
    with pytest.raises(ObjectiveError, match="needs a teacher"):
        as_objective(kl()).build(STUDENT, None, CLASSES)
    built = (kl() + labels()).build(STUDENT, TEACHER, CLASSES)
    with pytest.raises(ObjectiveError, match="needs a teacher"):
        built(STUDENT, None, BATCH)
    assert value(labels(), teacher=None).total > 0


def test_answers_of_other_shapes_are_refused():
    with pytest.raises(ObjectiveError, match=r"\(6, 3\)"):
        value(kl(), teacher=Signal(random(6, 3)))
    with pytest.raises(ObjectiveError, match=r"the student answers \(6, 4\), the teacher \(5, 4\)"):
        value(kl(), teacher=Signal(random(5, 4)))


def test_mse_refuses_a_teacher_with_infinite_logits():
    absent = TEACHER.output.clone()
    absent[:, 2] = -float("inf")
    with pytest.raises(ObjectiveError, match="infinite logits"):
        value(mse(), teacher=Signal(absent))


def test_label_smoothing_of_numbers_is_refused_before_training():
    task = regression().bind(Schema("tensor"))
    with pytest.raises(ObjectiveError, match="no smoothing"):
        as_objective(labels(smoothing=0.1)).build(Signal(random(6, 1)), None, task)


def test_a_teacher_that_excludes_an_outcome_only_in_later_batches_counts_zero():
    goal = as_objective(kl()).build(STUDENT, TEACHER, CLASSES)
    absent = TEACHER.output.clone()
    absent[2:, 1] = -float("inf")
    z = Signal(STUDENT.output.clone().requires_grad_())
    loss = goal(z, Signal(absent), BATCH)
    loss.total.backward()
    assert torch.isclose(loss.total, goal(STUDENT, Signal(absent.clamp(min=-2000.0)), BATCH).total)
    assert z.output.grad is not None
    assert torch.isfinite(z.output.grad).all()


# --- one value for each student of a cohort


def test_a_cohort_of_three_equals_three_objectives():
    z, t = random(3, 6, 4, seed=5), random(3, 6, 4, seed=6)
    temperatures, shares = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    made = blend(kl(temperature=temperatures[0]), labels(), weight=shares[0]).build(STUDENT, TEACHER, CLASSES)
    names = [name for name, _ in made.named_buffers()]
    assert names == ["terms.0._temperature.value", "knobs.0.value"]

    def loss(output: Tensor, answers: Tensor, temperature: Tensor, share: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        buffers = {names[0]: temperature, names[1]: share}
        found = torch.func.functional_call(made, buffers, (Signal(output), Signal(answers), BATCH))
        return found.total, found.parts

    pulls, parts = torch.func.vmap(torch.func.grad(loss, has_aux=True))(z, t, temperatures, shares)
    totals, _ = torch.func.vmap(loss)(z, t, temperatures, shares)
    for i in range(3):
        alone = blend(kl(temperature=float(temperatures[i])), labels(), weight=float(shares[i]))
        ours = z[i].clone().requires_grad_()
        single = value(alone, student=Signal(ours), teacher=Signal(t[i]))
        (pull,) = torch.autograd.grad(single.total, ours)
        assert torch.isclose(totals[i], single.total)
        assert torch.isclose(parts["kl"][i], single.parts["kl"])
        assert torch.allclose(pulls[i], pull)


@pytest.mark.parametrize("term", [reverse_kl, jsd, objective.skew_kl, objective.alpha_beta, objective.total_variation])
def test_every_divergence_runs_as_a_cohort_with_weights_and_masks(term):
    z = random(3, 6, 4, seed=5)
    temperatures = torch.tensor([1.0, 2.0, 4.0])
    batch = Batch(BATCH.inputs, labels=Y, mask=torch.arange(6) != 2, weight=torch.linspace(0.5, 2, 6))
    made = as_objective(term(temperature=temperatures[0])).build(STUDENT, TEACHER, CLASSES)

    def loss(output: Tensor, temperature: Tensor) -> Tensor:
        return torch.func.functional_call(made, {"terms.0._temperature.value": temperature}, (Signal(output), TEACHER, batch)).total

    together = torch.func.vmap(loss)(z, temperatures)
    for i in range(3):
        assert torch.isclose(together[i], value(term(temperature=float(temperatures[i])), batch, Signal(z[i])).total)


# --- the Distiller


class Normed(nn.Module):
    """A student with statistics and noise of its own."""

    def __init__(self, outcomes: int = 4) -> None:
        super().__init__()
        self.body, self.norm, self.drop, self.head = nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, outcomes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.body(inputs))))


ROWS = Batch(random(6, 3).float(), labels=Y)
ANSWERS = Signal(TEACHER.output.float())


def test_a_step_through_the_distiller_is_the_objective_of_the_students_answer():
    net = nn.Linear(3, 4)
    distiller = Distiller(net, blend(kl(), labels(), weight=0.9)).build(ROWS, ANSWERS)
    assert torch.equal(distiller(ROWS, ANSWERS).total, value(distiller.objective, ROWS, Signal(net(ROWS.inputs)), ANSWERS).total)


def test_the_student_lives_in_student_alone_and_the_teacher_nowhere():
    net, teacher = nn.Linear(3, 4), nn.Linear(3, 4)
    distiller = Distiller(net, kl() + labels()).build(ROWS, Signal(teacher(ROWS.inputs)))
    loss = distiller(ROWS, Signal(teacher(ROWS.inputs))).total
    loss.backward()
    assert {name for name, _ in distiller.named_parameters()} == {"student.weight", "student.bias"}
    assert set(distiller.state_dict()) == {"student.weight", "student.bias"}
    assert net.weight.grad is not None
    assert teacher.weight.grad is None


def test_building_moves_no_statistic_no_mode_and_no_random_number():
    net = Normed()
    net.drop.eval()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    Distiller(net, kl()).build(ROWS, ANSWERS)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert not net.drop.training


@pytest.mark.parametrize(
    ("outcomes", "given", "kind"),
    [
        (4, torch.tensor([0, 1, 2, 3, 0, 1]), "classification"),
        (1, torch.tensor([0, 1, 1, 0, 0, 1]), "classification"),
        (1, torch.zeros(6), "regression"),
        (3, torch.zeros(6, 3, dtype=torch.int64), "multilabel"),
        (4, None, "classification"),
    ],
)
def test_without_a_task_the_batch_implies_one(outcomes, given, kind):
    distiller = Distiller(nn.Linear(3, outcomes), labels()).build(Batch(ROWS.inputs, labels=given))
    assert distiller.task is not None
    assert distiller.task.kind == kind
    assert torch.isfinite(distiller(Batch(ROWS.inputs, labels=given)).total)


def test_a_schema_says_what_the_task_is():
    batch = Batch(ROWS.inputs, labels=torch.zeros(6, dtype=torch.int64), schema=Schema("tensor", classes=("no", "yes")))
    distiller = Distiller(nn.Linear(3, 1), labels()).build(batch)
    assert distiller.task is not None
    assert distiller.task.outcomes == 2


def test_one_output_without_labels_is_asked_about():
    with pytest.raises(ObjectiveError, match="two classes or a number") as caught:
        Distiller(nn.Linear(3, 1), labels()).build(Batch(ROWS.inputs))
    assert "task=" in caught.value.hint


def test_labels_out_of_range_are_named_before_training():
    with pytest.raises(ObjectiveError, match="labels from 0 to 3, the task has 2 outcomes"):
        Distiller(nn.Linear(3, 2), labels()).build(ROWS)


def test_a_student_that_answers_with_a_tuple_is_refused():
    with pytest.raises(StudentError, match="tuple"):
        Distiller(nn.GRU(3, 4), labels()).build(ROWS)


def test_one_logit_for_two_classes_is_two_outcomes_on_both_sides():
    """Softmax-KL of one logit is identically 0, a silent bug of many; here it is the Bernoulli's."""
    z, t = random(6, seed=7), random(6, seed=8)
    task = classification().bind(Schema("tensor", classes=("no", "yes")))
    goal = as_objective(kl(temperature=2)).build(Signal(z), Signal(t), task)
    p, q = torch.sigmoid(t / 2), torch.sigmoid(z / 2)
    by_hand = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert torch.isclose(goal(Signal(z), Signal(t), Batch(torch.zeros(6, 1))).total, by_hand)
    assert torch.isclose(goal(Signal(z[:, None]), Signal(t[:, None]), Batch(torch.zeros(6, 1))).total, by_hand)
