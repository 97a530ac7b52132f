"""Every word for a comparison of taps, or of output vectors, keeps the contract of a term."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attar import functional, objective
from attar.objective import (
    attention_scores,
    attention_transfer,
    cka,
    cosine,
    cosine_hidden,
    embedding_mse,
    hidden_states,
    hint,
    list_kl,
    margin_mse,
    minilm,
    minilmv2,
    regrasp,
    rkd_angle,
    rkd_distance,
    similarity_kl,
    similarity_mse,
    similarity_preserving,
)
from attar.signal import Batch, Schema, Signal
from attar.task import embedding
from attar.testing import Example, check_term, example, tapped
from attar.testing.terms import check_gradcheck, check_gradient, check_keeps, check_mask, check_padding

WORDS = {name: getattr(objective, name) for name in objective.__all__ if name[0].islower()}
LENGTHS = [4, 2, 3, 4, 1, 3, 2, 4]  # real tokens of each of 8 rows, of 4

VECTORS = tapped({"f": (3,)}, {"g": (3,)})
WIDER = tapped({"f": (3,)}, {"g": (5,)})
MAPS = tapped({"f": (2, 3, 3)}, {"g": (4, 3, 3)})
SMALLER = tapped({"f": (2, 2, 2)}, {"g": (3, 4, 4)})
SEVERAL = tapped({"a": (2, 3, 3), "b": (5,)}, {"c": (2, 3, 3), "d": (4,)})
TOKENS = tapped({"h": (4, 3)}, {"h": (4, 3)}, lengths=LENGTHS)
WIDER_TOKENS = tapped({"h": (4, 2)}, {"h": (4, 3)}, lengths=LENGTHS)
GRIDS = tapped({"f": (2, 3, 3)}, {"g": (10, 4)})  # a net's map and nine patches behind a class token
ATTENTION = tapped({"attention.1": (2, 4, 4)}, {"attention.2": (2, 4, 4)}, lengths=LENGTHS)
LAST = tapped({"attention.-1": (2, 4, 4), "value.-1": (4, 6)}, {"attention.-1": (2, 4, 4), "value.-1": (4, 4)}, lengths=LENGTHS)
QKV = tapped(
    {f"{k}.-1": (4, 4) for k in ("query", "key", "value")}, {f"{k}.-1": (4, 6) for k in ("query", "key", "value")}, lengths=LENGTHS
)
UNPADDED = tapped({f"{k}.1": (3, 4) for k in ("query", "key", "value")}, {f"{k}.2": (3, 4) for k in ("query", "key", "value")})


def relation(least: int) -> Example:
    return tapped({"embedding": (3,)}, {"embedding": (5,)}, least=least)


def regrasped() -> Example:
    on = tapped({"regrasped": (4,)}, {})
    return replace(on, twin=Signal(on.teacher.output, {"regrasped": on.teacher.output}))


# (word, example of taps)
TAPPED = [
    (lambda: hint("f", "g"), VECTORS),
    (lambda: hint("f", "g"), WIDER),
    (lambda: hint("f", "g", align="linear"), VECTORS),
    (lambda: hint("f", "g"), MAPS),
    (lambda: hint("f", "g"), SMALLER),
    (lambda: hint("f", "g", align="conv"), MAPS),
    (lambda: hint("f", "g"), GRIDS),
    (lambda: hint(["a", "b"], ["c", "d"]), SEVERAL),
    (lambda: hint("h", "h"), TOKENS),
    (lambda: hint("h", "h", align="pool"), TOKENS),
    (lambda: attention_transfer("f", "g"), MAPS),
    (lambda: attention_transfer("f", "g", form="paper"), SMALLER),
    (lambda: attention_transfer("f", "g", power=1), MAPS),
    (lambda: attention_transfer("f", "g", power=3, form="paper"), MAPS),
    (lambda: attention_transfer("h", "h"), WIDER_TOKENS),
    (lambda: regrasp(), regrasped()),
    (lambda: similarity_preserving("f", "g"), WIDER),
    (lambda: similarity_preserving("f", "g"), SMALLER),
    (lambda: similarity_preserving("h", "h"), WIDER_TOKENS),
    (lambda: rkd_distance(), relation(3)),
    (lambda: rkd_distance("f", "g"), replace(MAPS, least=3)),
    (lambda: rkd_angle(), relation(3)),
    (lambda: rkd_angle(triplets=0, seed=3), relation(3)),
    (lambda: cka(), relation(4)),
    (lambda: cka(["a", "b"], ["c", "d"]), replace(SEVERAL, least=4)),
    (lambda: hidden_states("h", "h"), TOKENS),
    (lambda: hidden_states("h", "h"), WIDER_TOKENS),
    (lambda: cosine_hidden("h", "h"), TOKENS),
    (lambda: cosine_hidden("h", "h"), WIDER_TOKENS),
    (lambda: attention_scores("attention.1", "attention.2"), ATTENTION),
    (lambda: minilm(), LAST),
    (lambda: minilmv2(relation_heads=2), QKV),
    (lambda: minilmv2(student=1, teacher=2, relation_heads=4), UNPADDED),
    (lambda: minilmv2(relation_heads=1), QKV),
]

FOUR = embedding().bind(Schema("text", texts=("query", "found", "one", "two"), embeds=True))
ROWS = example(FOUR, outcomes=5)
LONELY = example(embedding().bind(Schema("text", texts=("text",), embeds=True)), outcomes=5)
NARROW = replace(ROWS, student=Signal(ROWS.student.output[..., :3]))

# (word, example of output vectors)
EMBEDDED = [
    (lambda: cosine(), ROWS),
    (lambda: cosine(), LONELY),
    (lambda: cosine(), NARROW),
    (lambda: cosine(align="linear"), ROWS),
    (lambda: cosine(), example()),
    (lambda: embedding_mse(), ROWS),
    (lambda: embedding_mse(), NARROW),
    (lambda: margin_mse(), ROWS),
    (lambda: margin_mse(), NARROW),
    (lambda: margin_mse(pairs="all"), ROWS),
    (lambda: list_kl(), ROWS),
    (lambda: list_kl(temperature=0.5, score="dot"), ROWS),
    (lambda: similarity_kl(), ROWS),
    (lambda: similarity_kl(temperature=0.5), replace(LONELY, least=3)),
    (lambda: similarity_mse(), NARROW),
]
CASES = [*TAPPED, *EMBEDDED]


@pytest.mark.parametrize(("make", "on"), CASES, ids=[f"{make()!r}-{i}" for i, (make, _) in enumerate(CASES)])
def test_a_word_keeps_the_contract(make, on):
    check_term(make, on=on, vocabulary=WORDS)


@pytest.mark.parametrize("pairs", ["first", "all"])
def test_margins_of_dot_products_keep_the_contract_but_for_float16_which_their_gradient_leaves(pairs):
    for check in (check_keeps, check_gradient, check_mask, check_gradcheck):
        check(lambda: margin_mse(pairs=pairs, score="dot"), ROWS)


@pytest.mark.parametrize("word", [rkd_distance, rkd_angle, cka, similarity_preserving])
def test_a_batch_of_leftovers_teaches_nothing_by_a_relation(word):
    on = relation(4)
    goal = objective.as_objective(word()).build(on.student, on.teacher, on.task)
    student = Signal(on.student.output[:1], {"embedding": on.student.taps["embedding"][:1].requires_grad_()})
    teacher = Signal(on.teacher.output[:1], {"embedding": on.teacher.taps["embedding"][:1]})
    total = goal(student, teacher, replace(on.batch, inputs=torch.zeros(1, 1), labels=None)).total
    total.backward()
    assert float(total.detach()) == 0
    grad = student.taps["embedding"].grad
    assert grad is not None
    assert not grad.any()


# --- the contract notices terms that do not keep it


class Careless(objective.Term):
    """Compares taps and looks at no mask."""

    student_taps = frozenset({"h"})
    teacher_taps = frozenset({"h"})

    def __repr__(self) -> str:
        return "careless()"


class TokensOfAnyKind(Careless):
    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> torch.Tensor:
        assert teacher is not None
        return (student.taps["h"] - teacher.taps["h"]).square().mean((1, 2))


class RowsOfAnyKind(Careless):
    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> torch.Tensor:
        assert teacher is not None
        ours, theirs = (functional.similarity(s.taps["h"].nan_to_num(0.0, 0.0)) for s in (student, teacher))
        return (ours - theirs).square().mean()


def test_the_contract_notices_a_term_that_sees_padded_tokens():
    with pytest.raises(AssertionError, match="a padded token"):
        check_padding(TokensOfAnyKind, TOKENS)


def test_the_contract_notices_a_relation_with_rows_that_do_not_count():
    with pytest.raises(AssertionError, match="not as good as absent"):
        check_mask(RowsOfAnyKind, tapped({"h": (3,)}, {"h": (5,)}))


def test_the_contract_notices_a_nan_of_a_row_that_does_not_count():
    with pytest.raises(AssertionError, match="a row that does not count"):
        check_mask(TokensOfAnyKind, tapped({"h": (4, 3)}, {"h": (4, 3)}))
