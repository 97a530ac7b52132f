"""What an encoder holds inside, token by token: hidden states, attention, and how tokens relate in it."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from attar import functional
from attar.errors import ObjectiveError
from attar.notation import say
from attar.objective.algebra import Property, Term
from attar.objective.align import Align
from attar.objective.features import Feature
from attar.objective.layers import Layers, Pair, layers, rows_of
from attar.signal import Batch, Signal
from attar.task import Task

__all__ = [
    "AttentionScores",
    "Heads",
    "attention_scores",
    "cosine_hidden",
    "every",
    "hidden_states",
    "minilm",
    "minilmv2",
]

TOKENWISE: frozenset[Property] = frozenset({"zero", "positive", "rows", "accumulation"})


@final
class AttentionScores(Term):
    """Attention scores entry by entry; the word `attention_scores`."""

    compares_outputs: ClassVar[bool] = False
    keeps: ClassVar[frozenset[Property]] = TOKENWISE

    def __init__(self, compared: Layers) -> None:
        super().__init__()
        self.compared = compared
        self.student_taps, self.teacher_taps = frozenset(compared.student), frozenset(compared.teacher)

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        for pair in self.compared.pairs(student, teacher, repr(self)):
            _same_heads(pair)
            pair.mask()
            pair.check()

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        pairs = self.compared.pairs(student, teacher, repr(self))
        rows = rows_of(batch, self.task, len(pairs[0].student), pairs[0].who)
        measured = [_scores_gap(pair.blank(rows)) for pair in pairs]
        return rows.placed(sum(measured[1:], measured[0]))

    def __repr__(self) -> str:
        return say("attention_scores", **self.compared.said)


@final
class Heads(Term):
    """Relations of tokens within heads, of one layer of each side; the words `minilm` and `minilmv2`.

    student, teacher: the layers, from 1; −1 is the last. heads: relation heads; 0 takes attention itself and the model's own heads.
    Within one head over the whole width products do not see a rotation; several cut it up.
    """

    compares_outputs: ClassVar[bool] = False

    def __init__(self, student: int, teacher: int, heads: int) -> None:
        super().__init__()
        self.student, self.teacher, self.heads = student, teacher, heads
        turns: frozenset[Property] = frozenset({"rotation"}) if heads == 1 else frozenset()
        self.keeps = TOKENWISE | turns  # pyright: ignore[reportAttributeAccessIssue] - it depends on the arguments
        kinds = ("query", "key", "value") if heads else ("attention", "value")
        self.compared = Layers(tuple(f"{k}.{student}" for k in kinds), tuple(f"{k}.{teacher}" for k in kinds))
        self.student_taps, self.teacher_taps = frozenset(self.compared.student), frozenset(self.compared.teacher)

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        pairs = self.compared.pairs(student, teacher, repr(self))
        if not self.heads:
            _same_heads(pairs[0])
        for pair in pairs if self.heads else pairs[1:]:
            for side, held in (("student", pair.student), ("teacher", pair.teacher)):
                heads = self.heads or pairs[0].student.shape[1]
                if held.dim() != 3 or held.shape[-1] % heads:
                    raise ObjectiveError(
                        f"{pair.who}: {tuple(held.shape)} of the {side} does not divide into {heads} heads",
                        hint=_divisors(pair.student.shape[-1], pair.teacher.shape[-1]),
                    )
        for pair in pairs:
            pair.mask()
            pair.check()

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        pairs = self.compared.pairs(student, teacher, repr(self))
        rows = rows_of(batch, self.task, len(pairs[0].student), pairs[0].who)
        pairs = [pair.blank(rows) for pair in pairs]
        if self.heads:
            measured = [_relation(pair, self.heads) for pair in pairs]
            return rows.placed(sum(measured[1:], measured[0]))
        attention, value = pairs
        mask = attention.mask()
        attended = _over_queries(functional.attention_kl(attention.teacher, attention.student, mask), mask)
        return rows.placed(attended + _relation(value, attention.student.shape[1]))

    def __repr__(self) -> str:
        if self.heads:
            return say("minilmv2", student=self.student, teacher=self.teacher, relation_heads=self.heads)
        return say("minilm", student=self.student, teacher=self.teacher)


def hidden_states(student: str | list[str], teacher: str | list[str], align: Align = "auto") -> Feature:
    """Mean squared difference of hidden states, token by token; taps (B, L, D) → (B,). TinyBERT, arXiv:1909.10351, eq. 8 and 9.

        L = Σ_layers mean over real tokens and coordinates of (H_s W − H_t)²

    student, teacher: taps, lists of equal length for several layers: `every` writes the uniform map of the paper. "hidden.0" is what
        the first block reads, the embeddings; the paper compares it, too.
    align: "auto" learns W where widths differ; one for each layer, where the authors' code has one for all.

    `hint` for tokens alone: what is padded takes no part, a row counts alike however long it is, and sequences of different length are
    refused, for their tokens are not the same places of the text. The mean over elements is the authors', their weight 1. `cosine_hidden`
    leaves the size of states aside, `minilmv2` compares how tokens relate, and needs no W.

    >>> hidden_states(every(1, blocks=2), every(3, blocks=2))
    hidden_states(student=["hidden.0", "hidden.1", "hidden.2"], teacher=["hidden.0", "hidden.3", "hidden.6"], align="auto")
    """
    return Feature("hidden_states", functional.squared_error, layers("hidden_states", student, teacher), align, least=3)


def cosine_hidden(student: str | list[str] = "hidden", teacher: str | list[str] = "hidden", align: Align = "auto") -> Feature:
    """1 − cosine of hidden states, token by token; taps (B, L, D) → (B,). DistilBERT, arXiv:1910.01108, section 3.

        L = Σ_layers mean over real tokens of 1 − cos(h_s, h_t)

    student, teacher: taps; "hidden", the last hidden states, is the paper's.
    align: "auto" learns a linear map where widths differ; the paper's widths agree.

    The mean over real tokens is the authors', with weight 1. Like `hidden_states` without the size of a state.

    >>> cosine_hidden()
    cosine_hidden(student="hidden", teacher="hidden", align="auto")
    """
    return Feature("cosine_hidden", functional.cosine, layers("cosine_hidden", student, teacher), align, "scale", least=3)


def attention_scores(student: str | list[str], teacher: str | list[str]) -> AttentionScores:
    """Mean squared difference of attention before the softmax; taps (B, heads, L, L) → (B,). TinyBERT, arXiv:1909.10351, eq. 7.

        L = Σ_layers mean over heads and real tokens i, j of (A_s − A_t)²_ij,   A = q kᵀ / √d

    student, teacher: taps "attention.1", …; lists for several layers: `every(..., tap="attention")`. Heads must be as many on both sides.

    Scores, not probabilities: the paper found them to fit faster. Entries of padded tokens take no part, where the authors' code sets them
    to 0 on both sides and divides by all entries: the same sum, a larger mean. `minilm` compares what the softmax makes of them, `minilmv2`
    does without equal heads.

    >>> attention_scores("attention.-1", "attention.-1")
    attention_scores(student="attention.-1", teacher="attention.-1")
    """
    return AttentionScores(layers("attention_scores", student, teacher))


def minilm(student: int = -1, teacher: int = -1) -> Heads:
    """KL of attention and of value relations, one layer of each; taps → (B,). MiniLM, arXiv:2002.10957, sections 3.1 and 3.2.

        L = mean over heads and real queries of KL(A_t ‖ A_s) + KL(R_t ‖ R_s),   A = softmax(q kᵀ/√d), R = softmax(v vᵀ/√d)

    student, teacher: the layers, counted from 1; −1 is the last one, which the paper takes of both.

    Heads must be as many on both sides, widths may differ. Padded tokens neither ask nor are asked. `minilmv2` cuts both sides into heads
    anew, and is to be preferred.

    >>> minilm()
    minilm(student=-1, teacher=-1)
    """
    return Heads(_layer("minilm", student), _layer("minilm", teacher), 0)


def minilmv2(student: int = -1, teacher: int = -1, relation_heads: int = 12) -> Heads:
    """KL of the self-relations of queries, keys and values, one layer of each; taps (B, L, D) → (B,). MiniLMv2, arXiv:2012.15828.

        L = Σ_{X ∈ Q, K, V} mean over relation heads and real tokens of KL(R_t ‖ R_s),   R = softmax(X Xᵀ / √d_r)

    student, teacher: the layers, counted from 1; −1 is the last. The paper takes the student's last, of a base teacher its last, and of a
        large one an earlier: 21 of 24.
    relation_heads: how many heads Q, K and V are cut into anew, d_r = width / relation_heads; both widths must divide. The paper takes 48
        for base and 64 for large teachers; 12, the heads of a base model, is attar's default because it divides all common widths.

    No constraint on heads, widths or depth, and no projector: of the words for transformers the one to begin with. Padded tokens neither
    ask nor are asked. Sum over Q, K, V with equal weights, mean over heads and tokens, as in the paper.

    >>> minilmv2(student=3, teacher=6, relation_heads=48)
    minilmv2(student=3, teacher=6, relation_heads=48)
    """
    if relation_heads < 1:
        raise ObjectiveError(f"minilmv2(relation_heads={relation_heads})", hint="12, or another divisor of both widths")
    return Heads(_layer("minilmv2", student), _layer("minilmv2", teacher), relation_heads)


def every(step: int, blocks: int, tap: str = "hidden") -> list[str]:
    """Taps of every `step`-th block, as many as the student has: the uniform layer map of TinyBERT, arXiv:1909.10351, section 3.

    step: of the teacher its blocks over the student's, of the student 1. blocks: how many the student has.
    tap: "hidden" begins with hidden.0, what the first block reads; "attention", "query", "key" and "value" begin with the step-th block.
    A block beyond the model's last is refused when it is tapped.

    >>> every(3, blocks=2), every(3, blocks=2, tap="attention")
    (['hidden.0', 'hidden.3', 'hidden.6'], ['attention.3', 'attention.6'])
    """
    if step < 1 or blocks < 1:
        raise ObjectiveError(f"every({step}, blocks={blocks})", hint="step ≥ 1: teacher blocks over student blocks; blocks ≥ 1")
    return [f"{tap}.{step * i}" for i in range(0 if tap == "hidden" else 1, blocks + 1)]


def _layer(word: str, number: int) -> int:
    if number == 0:
        raise ObjectiveError(f"{word}() of block 0", hint="blocks count from 1; −1 is the last one")
    return number


def _same_heads(pair: Pair) -> None:
    """Both are scores of as many heads, or ObjectiveError."""
    ours, theirs = pair.student, pair.teacher
    if (ours.dim(), theirs.dim()) != (4, 4):
        raise ObjectiveError(
            f"{pair.who} have the shapes {tuple(ours.shape)} and {tuple(theirs.shape)}, not (B, heads, L, L)", hint='tap "attention.1", …'
        )
    if ours.shape[1] != theirs.shape[1]:
        raise ObjectiveError(
            f"{pair.who} have {ours.shape[1]} and {theirs.shape[1]} heads", hint="minilmv2() cuts both into relation heads of its own"
        )


def _scores_gap(pair: Pair) -> Tensor:
    """(B,), the mean square over heads and real entries; what is padded is 0 on both sides already."""
    mask = pair.mask()
    gap = (_wide(pair.student) - _wide(pair.teacher)).square()
    if mask is None:
        return gap.flatten(1).mean(1)
    both = (mask[:, None, :] & mask[:, :, None])[:, None]
    return gap.masked_fill(~both, 0.0).flatten(1).sum(1) / (both.flatten(1).sum(1).clamp(min=1) * gap.shape[1])


def _relation(pair: Pair, heads: int) -> Tensor:
    mask = pair.mask()
    return _over_queries(functional.relation_kl(pair.teacher, pair.student, heads, mask), mask)


def _over_queries(gap: Tensor, mask: Tensor | None) -> Tensor:
    """(B, heads, L) → (B,), the mean over heads and real queries; padded ones are 0 already."""
    if mask is None:
        return gap.flatten(1).mean(1)
    return gap.flatten(1).sum(1) / (mask.sum(1).clamp(min=1) * gap.shape[1])


def _divisors(ours: int, theirs: int) -> str:
    common = [n for n in range(1, min(ours, theirs) + 1) if ours % n == theirs % n == 0]
    return f"relation_heads divides both widths, {ours} and {theirs}: " + ", ".join(map(str, common[-6:]))


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.itemsize < 4 else values
