"""Words for encoders against loops, on padded batches, and on real encoders of different depth and width."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attar import functional, notation, objective
from attar.errors import NotationError, ObjectiveError, TapError
from attar.objective import Distiller, Term, attention_scores, cosine_hidden, every, hidden_states, labels, minilm, minilmv2
from attar.objective.methods import distilbert, tinybert
from attar.signal import Batch, Inputs, Schema, Signal
from attar.sources import module
from attar.task import classification
from attar.testing import Example, tapped

WORDS = {name: getattr(objective, name) for name in objective.__all__ if name[0].islower()}
LENGTHS = [4, 1, 2, 3, 4, 4, 2, 1]
KINDS = ("query", "key", "value")


def measured(term: Term, on: Example) -> Tensor:
    term.build(on.student, on.teacher, on.task)
    return term.measure(on.student, on.teacher, on.batch)


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(s) for s in scores]
    return [p / sum(powers) for p in powers]


def naive_kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def naive_relation(vectors: Tensor, head: int, heads: int, query: int, length: int) -> list[float]:
    width = vectors.shape[-1] // heads
    tokens = vectors[:length, head * width : (head + 1) * width].tolist()
    return softmax([dot(tokens[query], key) / math.sqrt(width) for key in tokens])


def naive_relations(ours: Tensor, theirs: Tensor, heads: int, length: int) -> float:
    gaps = [
        naive_kl(naive_relation(theirs, h, heads, q, length), naive_relation(ours, h, heads, q, length))
        for h in range(heads)
        for q in range(length)
    ]
    return sum(gaps) / len(gaps)


# --- loops


def test_minilmv2_is_the_loop_over_relation_heads_and_real_queries():
    on = tapped({f"{k}.-1": (4, 4) for k in KINDS}, {f"{k}.-1": (4, 6) for k in KINDS}, lengths=LENGTHS)
    for row, (value, length) in enumerate(zip(measured(minilmv2(relation_heads=2), on).tolist(), LENGTHS, strict=True)):
        parts = [naive_relations(on.student.taps[f"{k}.-1"][row], on.teacher.taps[f"{k}.-1"][row], 2, length) for k in KINDS]
        assert math.isclose(value, sum(parts), rel_tol=1e-9, abs_tol=1e-12)


def test_the_golden_value_of_minilmv2():
    fs = torch.tensor([[[1, 0, 2, -1], [0.5, 1, -1, 0], [2, 1, 0, 1]]])
    ft = torch.tensor([[[0, 1, 1, 1], [1, -1, 0.5, 0], [1, 2, 0, -1]]])
    base = tapped({}, {}, rows=1)
    same = {"key.-1": torch.zeros(1, 3, 4), "value.-1": torch.zeros(1, 3, 4)}  # of two relations that agree, one is left
    on = replace(
        base, student=Signal(base.student.output, {"query.-1": fs, **same}), teacher=Signal(base.teacher.output, {"query.-1": ft, **same})
    )
    assert math.isclose(float(measured(minilmv2(relation_heads=2), on)), 0.305090, rel_tol=1e-4)


def test_minilm_is_the_loop_over_the_models_own_heads():
    on = tapped({"attention.-1": (2, 4, 4), "value.-1": (4, 6)}, {"attention.-1": (2, 4, 4), "value.-1": (4, 4)}, lengths=LENGTHS)
    for row, (value, length) in enumerate(zip(measured(minilm(), on).tolist(), LENGTHS, strict=True)):
        scores = [s.taps["attention.-1"][row, :, :length, :length].tolist() for s in (on.student, on.teacher)]
        attended = [naive_kl(softmax(scores[1][h][q]), softmax(scores[0][h][q])) for h in range(2) for q in range(length)]
        related = naive_relations(on.student.taps["value.-1"][row], on.teacher.taps["value.-1"][row], 2, length)
        assert math.isclose(value, sum(attended) / len(attended) + related, rel_tol=1e-9, abs_tol=1e-12)


def test_attention_scores_are_the_loop_over_heads_and_real_pairs():
    on = tapped({"attention.1": (2, 4, 4)}, {"attention.3": (2, 4, 4)}, lengths=LENGTHS)
    for row, (value, length) in enumerate(zip(measured(attention_scores("attention.1", "attention.3"), on).tolist(), LENGTHS, strict=True)):
        ours, theirs = on.student.taps["attention.1"][row].tolist(), on.teacher.taps["attention.3"][row].tolist()
        squares = [(ours[h][i][j] - theirs[h][i][j]) ** 2 for h in range(2) for i in range(length) for j in range(length)]
        assert math.isclose(value, sum(squares) / len(squares), rel_tol=1e-9)


def test_the_authors_attention_loss_is_this_one_times_the_share_of_real_entries():
    """TinyBERT sets padded scores to 0 on both sides and averages over all entries."""
    on = tapped({"attention.1": (2, 4, 4)}, {"attention.3": (2, 4, 4)}, lengths=[3], rows=1)
    real = on.student.masks["attention.1"]
    both = (real[:, :, None] & real[:, None, :])[:, None]
    theirs = torch.nn.functional.mse_loss(on.student.taps["attention.1"] * both, on.teacher.taps["attention.3"] * both)
    assert torch.isclose(theirs, measured(attention_scores("attention.1", "attention.3"), on)[0] * 9 / 16)


def test_cosine_hidden_is_the_mean_over_real_tokens():
    on = tapped({"hidden": (4, 3)}, {"hidden": (4, 3)}, lengths=LENGTHS)
    for row, (value, length) in enumerate(zip(measured(cosine_hidden(), on).tolist(), LENGTHS, strict=True)):
        ours, theirs = (s.taps["hidden"][row, :length].tolist() for s in (on.student, on.teacher))
        cosines = [dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)) for a, b in zip(ours, theirs, strict=True)]
        assert math.isclose(value, 1 - sum(cosines) / length, rel_tol=1e-9)


def test_a_sentence_padded_further_is_the_same_sentence():
    short = tapped({f"{k}.-1": (4, 4) for k in KINDS}, {f"{k}.-1": (4, 4) for k in KINDS}, lengths=[3] * 8)

    def longer(signal: Signal) -> Signal:
        taps = {name: torch.cat((tap, torch.full((8, 2, 4), 5.0, dtype=tap.dtype)), 1) for name, tap in signal.taps.items()}
        return Signal(signal.output, taps, {name: torch.arange(6).expand(8, 6) < 3 for name in taps})

    padded = replace(short, student=longer(short.student), teacher=longer(short.teacher))
    for term in (minilmv2(relation_heads=2), hidden_states("query.-1", "value.-1"), cosine_hidden("query.-1", "value.-1")):
        assert torch.allclose(measured(term, padded), measured(term, short))


# --- layer maps


@pytest.mark.parametrize(
    ("taps", "named"),
    [
        (every(1, blocks=2), ["hidden.0", "hidden.1", "hidden.2"]),
        (every(6, blocks=2), ["hidden.0", "hidden.6", "hidden.12"]),
        (every(3, blocks=4, tap="attention"), ["attention.3", "attention.6", "attention.9", "attention.12"]),
    ],
)
def test_every_is_the_uniform_map(taps, named):
    assert taps == named


def test_a_recipe_writes_a_map_by_every_and_reads_back_the_layers():
    goal = notation.read("hidden_states(every(1, blocks=1), every(4, blocks=1))", WORDS)
    assert repr(goal) == 'hidden_states(student=["hidden.0", "hidden.1"], teacher=["hidden.0", "hidden.4"], align="auto")'
    assert notation.read(repr(goal), WORDS) == goal
    with pytest.raises(NotationError, match="student of hidden_states"):
        notation.read("hidden_states(3, 4)", WORDS)


@pytest.mark.parametrize("how", [{"step": 0, "blocks": 2}, {"step": 2, "blocks": 0}])
def test_a_map_of_nothing_is_refused(how):
    with pytest.raises(ObjectiveError, match="every"):
        every(**how)


# --- real encoders


class Encoder(nn.Module):
    """A library's classifier that reads Batch.inputs."""

    def __init__(self, blocks: int, width: int, heads: int, seed: int) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModelForSequenceClassification

        torch.manual_seed(seed)
        config = AutoConfig.for_model(
            "bert",
            vocab_size=40,
            hidden_size=width,
            num_hidden_layers=blocks,
            num_attention_heads=heads,
            intermediate_size=2 * width,
            max_position_embeddings=16,
            num_labels=3,
        )
        self.encoder = AutoModelForSequenceClassification.from_config(config)

    def forward(self, inputs: Inputs) -> Tensor:
        assert isinstance(inputs, Mapping)
        return self.encoder(**inputs).logits

    def positions(self, inputs: Inputs) -> Tensor:
        assert isinstance(inputs, Mapping)
        return inputs["attention_mask"].bool()


def tokens(length: int = 7, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 40, (6, length), generator=g)
    mask = (torch.arange(length) < torch.tensor([7, 3, 5, 7, 2, 4])[:, None]).long()
    schema = Schema("tensor", classes=("a", "b", "c"))
    return Batch({"input_ids": ids, "attention_mask": mask}, labels=torch.tensor([0, 1, 2, 0, 1, 2]), schema=schema)


@pytest.mark.parametrize(
    "goal",
    [
        minilmv2(relation_heads=4) + labels(),
        minilmv2(student=1, teacher=3, relation_heads=2) + labels(),
        minilm() + labels(),
        distilbert(),
        tinybert(2, blocks=2),
    ],
    ids=lambda g: repr(g)[:40],
)
def test_a_smaller_encoder_learns_from_a_larger_one(goal):
    teacher, student = module(Encoder(4, 16, 2, seed=0)), Encoder(2, 8, 2, seed=1)
    batch = tokens()
    answer = teacher(batch, goal.teacher_taps)
    distiller = Distiller(student, goal).build(batch, answer)
    optimizer = torch.optim.Adam(distiller.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        loss = distiller(batch, answer).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert all(math.isfinite(v) for v in losses)


def test_what_stands_in_padded_places_changes_nothing():
    goal = minilmv2(relation_heads=4) + hidden_states("hidden.-1", "hidden.-1") + attention_scores("attention.1", "attention.2")
    teacher, student = module(Encoder(4, 16, 2, seed=0)), Encoder(2, 8, 2, seed=1).eval()
    batch, other = tokens(), tokens(seed=1)
    assert isinstance(batch.inputs, Mapping) and isinstance(other.inputs, Mapping)
    mask = batch.inputs["attention_mask"]
    mixed = {"input_ids": torch.where(mask.bool(), batch.inputs["input_ids"], other.inputs["input_ids"]), "attention_mask": mask}
    distiller = Distiller(student, goal).build(batch, teacher(batch, goal.teacher_taps)).eval()
    totals = [distiller(b, teacher(b, goal.teacher_taps)).total for b in (batch, replace(batch, inputs=mixed))]
    assert torch.allclose(*totals, atol=1e-6)


def test_a_map_longer_than_the_model_is_refused():
    goal = tinybert(3, blocks=2)  # the teacher would need 6 blocks
    with pytest.raises(TapError, match=r"(?s)6.*4"):
        module(Encoder(4, 16, 2, seed=0))(tokens(), goal.teacher_taps)
    with pytest.raises(TapError):
        Distiller(Encoder(1, 8, 2, seed=0), goal).build(tokens(), Signal(torch.zeros(6, 3)))


# --- what is refused


def test_heads_that_differ_are_refused_with_both_numbers():
    on = tapped({"attention.-1": (2, 4, 4), "value.-1": (4, 6)}, {"attention.-1": (3, 4, 4), "value.-1": (4, 6)})
    for term in (minilm(), attention_scores("attention.-1", "attention.-1")):
        with pytest.raises(ObjectiveError, match="have 2 and 3 heads.*\n.*minilmv2"):
            term.build(on.student, on.teacher, on.task)


def test_relation_heads_that_do_not_divide_are_refused_with_those_that_do():
    on = tapped({f"{k}.-1": (4, 12) for k in KINDS}, {f"{k}.-1": (4, 18) for k in KINDS})
    with pytest.raises(ObjectiveError, match=r"\(8, 4, 18\) of the teacher does not divide into 12 heads\n.*1, 2, 3, 6"):
        minilmv2().build(on.student, on.teacher, on.task)


@pytest.mark.parametrize(
    "term", [minilmv2(relation_heads=2), hidden_states("query.-1", "query.-1"), cosine_hidden("query.-1", "query.-1")], ids=repr
)
def test_sequences_of_different_length_are_refused_with_both_lengths(term):
    on = tapped({f"{k}.-1": (4, 4) for k in KINDS}, {f"{k}.-1": (6, 4) for k in KINDS})
    with pytest.raises(ObjectiveError, match="have 4 and 6 tokens"):
        term.build(on.student, on.teacher, on.task)


def test_vectors_have_no_hidden_states():
    on = tapped({"hidden": (4,)}, {"hidden": (4,)})
    with pytest.raises(ObjectiveError, match="it compares tokens"):
        hidden_states("hidden", "hidden").build(on.student, on.teacher, on.task)


def test_hidden_states_are_no_attention():
    on = tapped({"hidden": (4, 4)}, {"hidden": (4, 4)})
    with pytest.raises(ObjectiveError, match=r"not \(B, heads, L, L\)"):
        attention_scores("hidden", "hidden").build(on.student, on.teacher, on.task)


@pytest.mark.parametrize("make", [lambda: minilm(student=0), lambda: minilmv2(teacher=0), lambda: minilmv2(relation_heads=0)])
def test_layers_count_from_one_and_heads_too(make):
    with pytest.raises(ObjectiveError, match="minilm"):
        make()


def test_relations_of_one_head_are_those_of_the_formula():
    on = tapped({f"{k}.1": (3, 4) for k in KINDS}, {f"{k}.2": (3, 4) for k in KINDS})
    parts = [functional.relation_kl(on.teacher.taps[f"{k}.2"], on.student.taps[f"{k}.1"], 1).mean((1, 2)) for k in KINDS]
    assert torch.allclose(measured(minilmv2(student=1, teacher=2, relation_heads=1), on), sum(parts[1:], parts[0]))
    assert classification().bind(Schema("tensor", classes=("0", "1", "2", "3"))).outcomes == on.task.outcomes
