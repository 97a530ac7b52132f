"""Task: one form of answers for all, losses that unknown labels cannot disturb, rules fixed on validation rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
from scipy.stats import pearsonr, spearmanr
from torch.nn import functional

from attar.errors import DataError, EvidenceError, NotationError, ObjectiveError
from attar.signal import IGNORE, Schema, Texts
from attar.task import Task, classification, embedding, multilabel, regression, task_for

BINARY = Schema("table", classes=("no", "yes"))
THREE = Schema("table", classes=("a", "b", "c"))
NUMBER = Schema("table")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_task_is_written_as_the_word_that_made_it_bound_or_not() -> None:
    for text in (
        'classification(metric="accuracy")',
        'classification(metric="auroc", threshold=0.3)',
        'classification(metric="recall_at_fpr", recall_at_fpr=0.05)',
        'multilabel(metric="average_precision")',
        'regression(metric="mae")',
    ):
        task = eval(text, {"classification": classification, "multilabel": multilabel, "regression": regression})
        assert repr(task) == text
    fixed = classification(recall_at_fpr=0.5).bind(BINARY).fix(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]))
    assert fixed.threshold is not None
    assert repr(fixed) == 'classification(metric="accuracy", recall_at_fpr=0.5)'


@pytest.mark.parametrize("shape", [(7,), (7, 1)])
def test_one_logit_of_two_outcomes_becomes_zero_and_the_logit(shape: tuple[int, ...]) -> None:
    z = torch.randn(shape, generator=generator())
    out = classification().bind(BINARY).canonical(z)
    assert torch.equal(out, torch.stack([torch.zeros(7), z.reshape(7)], -1))
    assert torch.allclose(out.softmax(-1)[:, 1], torch.sigmoid(z.reshape(7)))


def test_multi_label_answers_are_pairs_of_outcomes_whose_kl_is_bernoulli() -> None:
    task = multilabel().bind(THREE)
    z, y = torch.randn(5, 3, generator=generator()), torch.randint(0, 2, (5, 3), generator=generator())
    out = task.canonical(z)
    assert out.shape == (5, 3, 2)
    assert task.canonical(out) is out
    assert torch.allclose(task.label_loss(z, y), functional.binary_cross_entropy_with_logits(z, y.float(), reduction="none"), atol=1e-6)
    assert torch.equal(task.decide(z), (z > 0).long())


@pytest.mark.parametrize(
    ("task", "shape"),
    [(classification().bind(THREE), (5, 2)), (classification().bind(BINARY), (5, 3)), (multilabel().bind(THREE), (5, 4)),
     (regression().bind(NUMBER), (5, 2)), (classification().bind(THREE), (5,))],
)  # fmt: skip
def test_an_answer_of_another_shape_is_refused_with_both_shapes(task: Task, shape: tuple[int, ...]) -> None:
    with pytest.raises(ObjectiveError, match=r"answer of shape \(5"):
        task.canonical(torch.zeros(shape))


def test_an_unbound_task_says_so() -> None:
    with pytest.raises(ObjectiveError, match="bind"):
        classification().canonical(torch.zeros(2, 2))


def test_label_loss_is_cross_entropy_with_smoothing() -> None:
    task = classification().bind(THREE)
    z, y = torch.randn(6, 3, generator=generator()), torch.tensor([0, 1, 2, 0, 1, 2])
    for smoothing in (0.0, 0.2):
        theirs = functional.cross_entropy(z, y, reduction="none", label_smoothing=smoothing)
        assert torch.allclose(task.label_loss(z, y, smoothing), theirs, atol=1e-6)


def test_unknown_labels_cost_nothing_and_move_nothing() -> None:
    for task, labels in (
        (classification().bind(THREE), torch.tensor([0, IGNORE])),
        (regression().bind(NUMBER), torch.tensor([1.0, math.nan])),
    ):
        z = torch.randn(2, task.outcomes, generator=generator(), requires_grad=True)
        loss = task.label_loss(z, labels)
        loss.sum().backward()
        assert loss[0] > 0
        assert loss[1] == 0
        assert z.grad is not None
        assert torch.equal(z.grad[1], torch.zeros(task.outcomes))
        assert bool(torch.isfinite(z.grad).all())


def test_smoothing_spreads_over_possible_outcomes_only() -> None:
    task = classification().bind(THREE)
    z = torch.tensor([[1.0, 0.5, -math.inf]], requires_grad=True)
    loss = task.label_loss(z, torch.tensor([0]), 0.1)
    two = functional.cross_entropy(z[:, :2], torch.tensor([0]), label_smoothing=0.1)
    assert torch.allclose(loss, two)
    loss.sum().backward()
    assert z.grad is not None
    assert bool(torch.isfinite(z.grad).all())


def test_label_loss_works_for_many_students_at_once() -> None:
    task = classification().bind(BINARY)
    z, y = torch.randn(4, 9, 1, generator=generator()), torch.randint(0, 2, (9,), generator=generator())
    y[0] = IGNORE
    together = torch.func.vmap(lambda one: task.label_loss(one, y, 0.1))(z)
    assert torch.allclose(together, torch.stack([task.label_loss(one, y, 0.1) for one in z]))


def test_a_threshold_decides_the_positive_class_which_is_the_last() -> None:
    z = torch.tensor([-2.0, -1.0, 0.0, 1.0])
    assert classification().bind(BINARY).decide(z).tolist() == [0, 0, 0, 1]
    assert classification(threshold=0.2).bind(BINARY).decide(z).tolist() == [0, 1, 1, 1]
    assert classification(threshold=0.9).bind(BINARY).decide(z).tolist() == [0, 0, 0, 0]


def test_a_rule_is_kept_where_a_probability_has_no_digits_left() -> None:
    task = classification(metric="recall_at_fpr", recall_at_fpr=0.5).bind(BINARY)
    scores, y = torch.tensor([90.0, 80.0, 70.0, 60.0], dtype=torch.float64), torch.tensor([1, 1, 0, 0])
    assert task.fix(scores, y).decide(scores).tolist() == [1, 1, 1, 0]
    with pytest.raises(EvidenceError, match="no negative row"):
        task.fix(scores, y, torch.tensor([1.0, 1.0, 0.0, 0.0]))


def test_a_rule_is_fixed_on_some_rows_and_kept_on_others() -> None:
    task = classification(metric="recall_at_fpr", recall_at_fpr=0.1).bind(BINARY)
    y = torch.randint(0, 2, (4000,), generator=generator())
    z = y + torch.randn(4000, generator=generator(1))
    fixed = task.fix(z[:2000], y[:2000])
    on_valid, on_test = fixed.measure(z[:2000], y[:2000]), fixed.measure(z[2000:], y[2000:])
    assert on_valid["false_positive_rate"] <= 0.1
    assert on_valid["false_positive_rate"] == pytest.approx(0.1, abs=0.002)
    assert on_test["false_positive_rate"] == pytest.approx(0.1, abs=0.03)
    assert on_valid["recall_at_fpr"] == pytest.approx(task.measure(z[:2000], y[:2000])["recall_at_fpr"])
    positive = y[2000:] == 1
    assert on_test["recall_at_fpr"] == pytest.approx(float(fixed.decide(z[2000:])[positive].double().mean()))


def test_measures_of_two_outcomes_are_those_of_scikit_learn_without_unknown_rows() -> None:
    y = torch.randint(0, 2, (300,), generator=generator())
    z = y + torch.randn(300, generator=generator(1))
    weight = torch.rand(300, generator=generator(2))
    known = torch.rand(300, generator=generator(3)) < 0.7
    found = classification(metric="auroc").bind(BINARY).measure(z, torch.where(known, y, IGNORE), weight)
    assert next(iter(found)) == "auroc"
    y_, p, w = y[known].numpy(), torch.sigmoid(z[known].double()).numpy(), weight[known].numpy()
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(y_, p, sample_weight=w))
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(y_, p, sample_weight=w))
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(y_, p > 0.5, sample_weight=w))
    assert found["log_loss"] == pytest.approx(reference.log_loss(y_, p, sample_weight=w))
    assert found["brier"] == pytest.approx(2 * reference.brier_score_loss(y_, p, sample_weight=w))


def test_measures_of_several_labels_leave_unknown_ones_out() -> None:
    task = multilabel().bind(THREE)
    y = torch.randint(0, 2, (200, 3), generator=generator())
    z = y + torch.randn(200, 3, generator=generator(1))
    known = torch.rand(200, 3, generator=generator(2)) < 0.8
    found = task.measure(z, torch.where(known, y, IGNORE))
    by_label = [reference.average_precision_score(y[known[:, i], i], z[known[:, i], i]) for i in range(3)]
    assert found["average_precision"] == pytest.approx(np.mean(by_label))
    assert found["accuracy"] == pytest.approx(float(((z > 0) == y)[known].double().mean()))


def test_auroc_of_many_classes_is_a_one_vs_rest_mean() -> None:
    y = torch.arange(150) % 3
    z = torch.randn(150, 3, generator=generator()) + functional.one_hot(y)
    found = classification(metric="auroc").bind(THREE).measure(z, y)
    theirs = reference.roc_auc_score(y, z.double().softmax(-1), multi_class="ovr")
    assert found["auroc"] == pytest.approx(theirs)
    assert "auroc" not in classification().bind(THREE).measure(z, y)


def test_the_task_that_a_schema_implies() -> None:
    assert task_for(THREE).outcomes == 3
    assert task_for(NUMBER).kind == "regression"
    assert task_for(THREE, "multilabel").labels == 3


def test_a_metric_that_does_not_fit_is_refused_with_one_that_does() -> None:
    with pytest.raises(NotationError, match="did you mean 'auroc'"):
        classification(metric="aurok")
    with pytest.raises(NotationError, match="rmse is for regression"):
        classification(metric="rmse")
    with pytest.raises(NotationError, match="recall_at_fpr=0.05"):
        classification(metric="recall_at_fpr")
    with pytest.raises(NotationError, match="between 0 and 1"):
        classification(threshold=5)
    with pytest.raises(NotationError, match="two decision rules"):
        classification(threshold=0.5, recall_at_fpr=0.05)


def test_a_task_that_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(DataError, match="is a number"):
        classification().bind(NUMBER)
    with pytest.raises(DataError, match="one class only"):
        classification().bind(Schema("table", classes=("a",)))
    with pytest.raises(DataError, match="threshold needs two classes"):
        classification(threshold=0.4).bind(THREE)
    with pytest.raises(DataError, match="3 classes: a, b, c"):
        regression().bind(THREE)


def test_metrics_without_a_known_label_are_refused() -> None:
    with pytest.raises(EvidenceError, match="none of 2 rows"):
        classification().bind(BINARY).measure(torch.zeros(2, 2), torch.full((2,), IGNORE))


PAIRS = Schema("text", texts=("one", "two"), embeds=True, label="score", label_mean=2.5, label_std=1.5)


def test_an_embedding_is_a_vector_for_each_text_of_whatever_width() -> None:
    task = embedding().bind(PAIRS)
    for width in (3, 384):
        out = torch.zeros(5, 2, width)
        assert task.canonical(out) is out
    assert embedding().bind(Schema("text", texts=("text",), embeds=True)).canonical(torch.zeros(5, 7)).shape == (5, 1, 7)
    with pytest.raises(ObjectiveError, match=r"\(5, 7\).*each of 2 texts"):
        task.canonical(torch.zeros(5, 7))
    assert task_for(PAIRS) == task
    assert repr(embedding(metric="recall_at_k", k=3)) == 'embedding(metric="recall_at_k", k=3)'


def test_scores_are_correlated_with_the_cosine_of_a_pair() -> None:
    task = embedding().bind(PAIRS)
    out, scores = torch.randn(30, 2, 4, generator=generator()), torch.rand(30, generator=generator(1)) * 5
    cosine = functional.cosine_similarity(out[:, 0], out[:, 1], dim=-1).numpy()
    found = task.measure(out, scores)
    assert found == pytest.approx(rel=1e-4, expected={"spearman": spearmanr(cosine, scores)[0], "pearson": pearsonr(cosine, scores)[0]})
    assert list(found) == ["spearman", "pearson"]
    unknown = scores.clone()
    unknown[10:] = math.nan
    assert task.measure(out, unknown) == pytest.approx(task.measure(out[:10], scores[:10]))


def test_recall_needs_pairs_and_no_scores_but_a_score_of_nothing_says_not_relevant() -> None:
    task = embedding(metric="recall_at_k", k=1).bind(PAIRS)
    out = torch.eye(4).repeat(1, 2).reshape(4, 2, 4)
    figures = task.figures(out, None)
    assert float(figures["recall_at_k"](np.ones(4))) == 1
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    assert task.judged(None, 4, mask).tolist() == [True, False, True, True]
    assert task.judged(torch.tensor([1.0, 1.0, 0.0, math.nan]), 4, mask).tolist() == [True, False, False, True]


def test_texts_that_are_equal_have_equal_numbers() -> None:
    numbers = embedding().bind(PAIRS).which_texts({"one": Texts(["a", "b", "\ud800"]), "two": Texts(["b", "a", "c"])})
    assert numbers is not None
    assert numbers.shape == (3, 2)
    assert numbers[0, 0] == numbers[1, 1]
    assert numbers[1, 0] == numbers[0, 1]
    assert len(numbers.unique()) == 4


def test_the_loss_of_a_score_is_the_squared_distance_of_the_cosine_from_where_it_lies_among_scores() -> None:
    task = embedding().bind(PAIRS)
    out = torch.tensor([[[1.0, 0], [1, 0]], [[1, 0], [0, 1]], [[1, 0], [1, 0]], [[0, 0], [0, 1]]]).requires_grad_()
    loss = task.label_loss(out, torch.tensor([4.0, 2.5, math.nan, 100.0]))
    assert loss.tolist() == pytest.approx([0.2**2, 0.5**2, 0, 1])
    (grad,) = torch.autograd.grad(loss.sum(), out)
    assert torch.isfinite(grad).all()
    assert not grad[2].any()


def test_what_an_embedding_cannot_be_asked_is_said() -> None:
    single = embedding().bind(Schema("text", texts=("text",), embeds=True))
    with pytest.raises(ObjectiveError, match="two texts"):
        single.label_loss(torch.zeros(2, 1, 3), torch.zeros(2))
    with pytest.raises(EvidenceError, match="decides nothing"):
        single.decide(torch.zeros(2, 1, 3))
    assert not single.judged(torch.zeros(2), 2).any()
    with pytest.raises(DataError, match="embedding"):
        embedding().bind(BINARY)
    with pytest.raises(DataError, match="vector for each text"):
        regression().bind(PAIRS)
    with pytest.raises(NotationError, match="k=0"):
        embedding(k=0)
    with pytest.raises(NotationError, match="has no metric"):
        embedding(metric="accuracy")


@pytest.mark.parametrize(
    ("task", "shape", "labels"),
    [
        (classification(metric="auroc").bind(BINARY), (40,), 2),
        (classification(metric="recall_at_fpr", recall_at_fpr=0.1).bind(BINARY), (40,), 2),
        (classification().bind(THREE), (40, 3), 3),
        (multilabel().bind(THREE), (40, 3), 2),
        (regression().bind(NUMBER), (40,), 0),
    ],
    ids=["two classes", "a rule", "three classes", "labels", "numbers"],
)
def test_rows_are_sorted_once_and_not_for_each_weighting(
    task: Task, shape: tuple[int, ...], labels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = torch.randn(shape, generator=generator())
    y = torch.randint(0, labels, shape[:1] if task.kind == "classification" else shape, generator=generator(1)) if labels else output + 1
    figures = task.figures(output, y)
    weight = np.random.default_rng(0).integers(1, 3, size=(5, 40)).astype(np.float64)
    monkeypatch.delattr(np, "argsort")
    for name, figure in figures.items():
        assert np.isfinite(figure(weight)).all(), name
