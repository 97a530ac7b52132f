"""Vectors of texts: the words that compare a student's output vectors, or the scores made of them, with the teacher's."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn

from attar import functional
from attar.errors import ObjectiveError
from attar.notation import say
from attar.objective.algebra import Property, Term
from attar.objective.align import Align, aligned
from attar.signal import Batch, Signal
from attar.task import Task

__all__ = [
    "Candidates",
    "InBatch",
    "Score",
    "Vectors",
    "cosine",
    "embedding_mse",
    "list_kl",
    "margin_mse",
    "similarity_kl",
    "similarity_mse",
]

Score = Literal["cosine", "dot"]
TEXTWISE: frozenset[Property] = frozenset({"zero", "positive", "rows"})


@final
class Vectors(Term):
    """Output vectors, one by one: (..., D) → (...); the words `cosine` and `embedding_mse`.

    word: the name. formula: (teacher, student) → (...), reduces coordinates.
    align: what brings the student's vectors to the teacher's width, see `aligned`; its projector stays behind with the objective.
    """

    compares_outputs: ClassVar[bool] = False  # their widths may differ

    def __init__(self, word: str, formula: Callable[[Tensor, Tensor], Tensor], align: Align, *keeps: Property) -> None:
        super().__init__()
        self.align: Align = align
        self._word, self.formula = word, formula
        zero: frozenset[Property] = frozenset() if align in ("linear", "conv") else frozenset({"zero"})
        known: frozenset[Property] = frozenset({"positive", "rows", "accumulation"})
        self.keeps = known.union(keeps) | zero  # pyright: ignore[reportAttributeAccessIssue] - it depends on the arguments
        self.project = nn.Identity()

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        """Makes the projector. Raises ObjectiveError: other texts, a single coordinate, vectors that are not finite."""
        super().build(student, teacher, task)
        ours, theirs = _vectors(self, student, teacher)
        made = aligned(self.align, ours.flatten(0, -2), theirs.flatten(0, -2), repr(self))
        self.project = nn.Identity() if made.project is None else made.project

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None
        return self.formula(teacher.output, self.project(_wide(student.output)))

    def __repr__(self) -> str:
        return say(self._word, align=self.align)


@final
class Candidates(Term):
    """Scores of a row's documents against its query: (B, K, D) → (B,), text 0 the query; the words `margin_mse` and `list_kl`.

    formula: (teacher's scores, student's scores, mask) → (B,), of (B, K − 1) scores; mask tells which documents are there, None: all.
    """

    compares_outputs: ClassVar[bool] = False  # the scores are compared; widths may differ

    def __init__(
        self, word: str, formula: Callable[[Tensor, Tensor, Tensor | None], Tensor], score: Score, arguments: dict[str, float | str]
    ) -> None:
        super().__init__()
        if score not in ("cosine", "dot"):
            raise ObjectiveError(f"{word}(score={score!r})", hint='"cosine" or "dot"')
        self.score: Score = score
        self._word, self.formula, self.arguments = word, formula, arguments
        scale: frozenset[Property] = frozenset({"scale"}) if score == "cosine" else frozenset()
        self.keeps = TEXTWISE | scale | {"accumulation"}  # pyright: ignore[reportAttributeAccessIssue] - it depends on the score

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        ours, _ = _vectors(self, student, teacher)
        if ours.dim() != 3 or ours.shape[1] < 3:
            texts = f"{ours.shape[1]} texts" if ours.dim() == 3 else "one text"
            raise ObjectiveError(
                f"{self!r} scores at least two documents against a query, a row here has {texts}",
                hint='texts=["query", "positive", "negative"]; similarity_kl() relates all texts of a batch',
            )

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None
        there = _texts(batch, student.output)
        ours, theirs = (_scored(s.output, self.score) for s in (student, teacher))
        measured = self.formula(theirs, ours, None if there is None else there[:, 1:])
        known = self.known(batch)
        return measured if known is None else measured.masked_fill(~known, 0.0)

    def known(self, batch: Batch) -> Tensor | None:
        """(B,) bool: rows with a query and two documents, the first among them where all are compared with it."""
        if batch.mask is None or batch.mask.dim() != 2:
            return None
        there = batch.mask[:, 0] & (batch.mask[:, 1:].sum(1) >= 2)
        return there & batch.mask[:, 1] if self.arguments.get("pairs") == "first" else there

    def __repr__(self) -> str:
        return say(self._word, **self.arguments, score=self.score)


@final
class InBatch(Term):
    """Cosines of all texts of a batch with each other: (B, K, D) → (B, K); the words `similarity_kl` and `similarity_mse`."""

    compares_outputs: ClassVar[bool] = False  # cosines are compared; widths may differ
    keeps: ClassVar[frozenset[Property]] = frozenset({"zero", "positive", "rows", "scale"})

    def __init__(self, word: str, formula: Callable[[Tensor, Tensor], Tensor], arguments: dict[str, float], least: int) -> None:
        super().__init__()
        self._word, self.formula, self.arguments, self.least = word, formula, arguments, least

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        ours, _ = _vectors(self, student, teacher)
        if ours.shape[:-1].numel() < self.least:
            raise ObjectiveError(
                f"{self!r} relates at least {self.least} texts, a batch has {ours.shape[:-1].numel()}", hint="fit(batch=64) or more"
            )

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None
        shape = student.output.shape[:-1]
        ours, theirs = (_wide(s.output).flatten(0, -2) for s in (student, teacher))
        there = _texts(batch, student.output)
        places = None if there is None else there.flatten().nonzero()[:, 0]
        if len(ours if places is None else places) < self.least:  # a batch of leftovers
            return ours.sum(-1).reshape(shape) * 0.0
        if places is None:
            return self.formula(theirs, ours).reshape(shape)
        measured = self.formula(theirs.index_select(0, places), ours.index_select(0, places))
        return measured.new_zeros(shape.numel()).index_copy(0, places, measured).reshape(shape)

    def __repr__(self) -> str:
        return say(self._word, **self.arguments)


def cosine(align: Align = "auto") -> Vectors:
    """1 − cosine of the output vectors, text by text: (..., D) → (...). Tokenlearn's and sentence encoders' distance, 0..2.

        L = 1 − e_s · e_t / (‖e_s‖ ‖e_t‖)

    align: "auto" learns a linear map where widths differ; then the student's own vectors are the teacher's up to that map alone, and their
        cosines are others. A teacher in the student's width, by PCA, needs none.

    Half the squared distance of unit vectors, so of vectors that will be compared by their cosines it takes what counts. `embedding_mse`
    fits lengths, too; `similarity_kl` compares how texts lie to each other, and needs no common width.

    >>> cosine()
    cosine(align="auto")
    """
    return Vectors("cosine", functional.cosine, align, "scale")


def embedding_mse(align: Align = "auto") -> Vectors:
    """Mean over coordinates of the squared difference of output vectors, text by text: (..., D) → (...). Reimers & Gurevych 2020.

        L = 1/D Σ_d (g(e_s) − e_t)²_d

    align: "auto" learns a linear map g where widths differ, see `cosine`.

    arXiv:2004.09813; the mean over coordinates is that of `MSELoss` in sentence-transformers: of unit vectors it is about 1/D, so
    give it a weight of D to see it beside `cosine`. Where widths agree it is `mse` of an embedding task.

    >>> embedding_mse()
    embedding_mse(align="auto")
    """
    return Vectors("embedding_mse", functional.squared_error, align)


def margin_mse(pairs: Literal["first", "all"] = "first", score: Score = "cosine") -> Candidates:
    """Squared difference of score margins: (B, K, D), text 0 a query, text 1 what it finds, → (B,). Margin-MSE, arXiv:2010.02666.

        s_k = score of text k with text 0;   first: mean over k > 1 of ((s_1 − s_k) − (t_1 − t_k))²;   all: over all pairs of documents

    pairs: "first" compares the positive with each other document, "all" each document with each, CL-DRD, arXiv:2204.13679.
    score: "cosine", or "dot", which the paper takes.

    Margins do not see a number that all scores of a teacher share. Cosines lie in −1..1, dot products of the paper's encoders around 100:
    weights do not carry over. `list_kl` looks at what comes first, this one at all alike.

    >>> margin_mse()
    margin_mse(pairs="first", score="cosine")
    """
    if pairs not in ("first", "all"):
        raise ObjectiveError(f"margin_mse(pairs={pairs!r})", hint='"first" or "all"')

    def formula(theirs: Tensor, ours: Tensor, mask: Tensor | None) -> Tensor:
        return functional.margin_mse(theirs, ours, pairs, mask)

    return Candidates("margin_mse", formula, score, {"pairs": pairs})


def list_kl(temperature: float = 1.0, score: Score = "cosine") -> Candidates:
    """T² KL of which document answers a query: (B, K, D), text 0 the query, → (B,). ListNet, Cao et al. 2007; in nats.

        L = T² KL(p ‖ q),   p = softmax over documents of t_k / T,  q = softmax of s_k / T,   scores of text k with text 0

    temperature: T; 1 is the default of `DistillKLDivLoss` in sentence-transformers since 5.0.1, for dot products. Cosines lie in −1..1,
        where T = 1 leaves all documents nearly alike: 0.05 is what contrastive encoders are trained with.
    score: "cosine" or "dot".

    `kl` over a row's documents; `margin_mse` fits each margin, this one above all what comes first.

    >>> list_kl(temperature=0.05)
    list_kl(temperature=0.05, score="cosine")
    """
    degree = _positive("list_kl", temperature)

    def formula(theirs: Tensor, ours: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            some = mask.any(-1, keepdim=True)  # where no document is there nothing is left out, and nothing counts
            theirs, ours = (scores.masked_fill(some & ~mask, -torch.inf) for scores in (theirs, ours))
        log_p, log_q = (functional.log_probabilities(scores, degree) for scores in (theirs, ours))
        return functional.kl(log_p, log_q) * degree**2

    return Candidates("list_kl", formula, score, {"temperature": degree})


def similarity_kl(temperature: float = 0.05) -> InBatch:
    """T² KL of whom a text lies near in its batch, by cosine: (B, K, D) → (B, K). SEED, arXiv:2101.04731, within a batch.

        L_i = T² KL(p_i ‖ q_i),   p_ij = softmax over j ≠ i of cos(t_i, t_j) / T,  q likewise of the student

    temperature: T, in units of cosine; 0.05 is the scale 20 of contrastive sentence encoders. Higher looks further away.

    All texts of all rows are neighbours, widths may differ, and no projector is learnt: the student's own cosines are taught. Larger
    batches teach more; B·K squared numbers in memory. `similarity_mse` asks for the cosines themselves, near and far alike.

    >>> similarity_kl()
    similarity_kl(temperature=0.05)
    """
    degree = _positive("similarity_kl", temperature)

    def formula(theirs: Tensor, ours: Tensor) -> Tensor:
        return functional.similarity_kl(theirs, ours, degree) * degree**2

    return InBatch("similarity_kl", formula, {"temperature": degree}, 3)


def similarity_mse() -> InBatch:
    """Squared difference of the cosines of all texts of a batch: (B, K, D) → (B, K). SetFit's distillation, arXiv:2209.11055.

        L_i = 1/N Σ_j (cos(s_i, s_j) − cos(t_i, t_j))²,   over the N texts of the batch

    `similarity_preserving` of output vectors, but cosines keep their size: what is as near as .9 is to be .9 near. The mean is over all N²
    cosines, those of a text with itself among them.

    >>> similarity_mse()
    similarity_mse()
    """
    return InBatch("similarity_mse", functional.similarity_mse, {}, 2)


def _vectors(term: Term, student: Signal, teacher: Signal | None) -> tuple[Tensor, Tensor]:
    """Both sides' output vectors of the same texts, or ObjectiveError."""
    assert teacher is not None  # Term.build has seen to it
    ours, theirs = student.output, teacher.output
    shapes = f"the student answers {tuple(ours.shape)}, the teacher {tuple(theirs.shape)}"
    if ours.shape[:-1] != theirs.shape[:-1]:
        raise ObjectiveError(f"{term!r}: {shapes}", hint="both answer a vector for each text of the same rows")
    if min(ours.shape[-1], theirs.shape[-1]) < 2:
        raise ObjectiveError(f"{term!r} compares vectors, {shapes}", hint="mse() compares numbers")
    if not bool(torch.isfinite(ours).all() and torch.isfinite(theirs).all()):
        raise ObjectiveError(f"{term!r} of vectors that are not finite", hint="logits with absent outcomes are no vectors; kl() takes them")
    return ours, theirs


def _texts(batch: Batch, output: Tensor) -> Tensor | None:
    """(B, K) bool or (B,), of which texts mask and row weight let the vectors count; None: all."""
    mask = batch.mask
    if batch.weight is not None:
        there = batch.weight != 0
        there = there.reshape(-1, *(1,) * (output.dim() - 2)).expand(output.shape[:-1])
        mask = there if mask is None else (mask if mask.dim() == there.dim() else mask[:, None]) & there
    if mask is None or mask.shape == output.shape[:-1]:
        return mask
    return mask[:, None].expand(output.shape[:-1])


def _scored(vectors: Tensor, score: Score) -> Tensor:
    """(B, K, D) → (B, K − 1), each document's score with text 0."""
    wide = _wide(vectors)
    query, documents = wide[:, :1], wide[:, 1:]
    if score == "dot":
        return (query * documents).sum(-1)
    return 1 - functional.cosine(query.expand_as(documents), documents)


def _positive(word: str, temperature: float) -> float:
    if not 0 < temperature < torch.inf:
        raise ObjectiveError(f"{word}(temperature={temperature:g})", hint="0 < temperature < ∞")
    return float(temperature)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.itemsize < 4 else values
