"""A paper is one line: the whole loss of a method, with the authors' numbers, in attar's unit.

attar's unit: sums over outcomes, means over positions, and T² where a divergence is quadratic near equality. Where the authors' code has
another one, the conversion stands in the docstring. Some methods are words already, with nothing to add: `minilm`, `minilmv2`, `cka`.
"""

from __future__ import annotations

from attar.objective.algebra import Objective, as_objective, blend
from attar.objective.align import Align
from attar.objective.correlations import dist
from attar.objective.features import attention_transfer, hint, regrasp
from attar.objective.relations import rkd_angle, rkd_distance, similarity_preserving
from attar.objective.targets import dkd
from attar.objective.terms import kl, labels
from attar.objective.transformers import attention_scores, cosine_hidden, every, hidden_states
from attar.objective.transforms import standardised
from attar.objective.weights import Weight, ramp

__all__ = [
    "at",
    "decoupled_kd",
    "dist_kd",
    "distilbert",
    "fitnets",
    "hinton",
    "logit_standardisation",
    "rkd",
    "simkd",
    "sp",
    "srrl",
    "tinybert",
]


def hinton(temperature: float = 4.0, weight: float | Weight = 0.9) -> Objective:
    """KD: tempered KL and labels. Hinton et al. 2015, arXiv:1503.02531; numbers of mdistiller and RepDistiller for CIFAR-100.

        w T² KL(p_T ‖ q_T) + (1 − w) CE

    temperature: T. weight: w, 0..1. The unit is theirs. The paper itself gives no pair of numbers; DeiT and TAKD average over outcomes, so
    that their weight is 1/C of this one.

    CIFAR-100, ResNet-32x4 → ResNet-8x4: 72.50 → 73.33, RepDistiller's best epoch of the test set. The baseline that every other line here
    has to beat.

    >>> hinton()
    0.9 * kl(temperature=4.0) + 0.1 * labels(smoothing=0.0)
    """
    return blend(kl(temperature=temperature), labels(), weight=weight)


def fitnets(
    student: str | list[str] = "stage2", teacher: str | list[str] = "stage2", weight: float | Weight = 100.0, align: Align = "auto"
) -> Objective:
    """FitNets: a hint beside the labels. Romero et al. 2015, arXiv:1412.6550; numbers of RepDistiller.

        CE + β mean (r(F_s) − F_t)²

    student, teacher: the layer in the middle, which the paper takes. weight: β, 100 of RepDistiller, in its unit. The paper trains by the
    hint alone at first, by KD afterwards: `ramp(1, 0, until=0.5) * hint(...) + ramp(0, 1, until=0.5) * kl(temperature=3)` comes near it.

    CIFAR-100, ResNet-32x4 → ResNet-8x4: 73.50, `hinton` 73.33. Over RepDistiller's 13 pairs below no distillation 4 times.

    >>> fitnets("stage2", "stage3")
    labels(smoothing=0.0) + 100.0 * hint(student="stage2", teacher="stage3", align="auto")
    """
    return labels() + weight * hint(student, teacher, align)


def at(student: str | list[str], teacher: str | list[str], weight: float | Weight = 1000.0) -> Objective:
    """Attention transfer: where maps are bright, beside the labels. Zagoruyko & Komodakis 2017, arXiv:1612.03928.

        CE + β Σ_layers mean (a_s − a_t)²

    student, teacher: taps of the ends of the stages, such as ["stage1", "stage2", "stage3"]. weight: β, 1000 of the authors' code, with its
    form; the formula of the paper is another one, see `attention_transfer`.

    CIFAR-100, ResNet-32x4 → ResNet-8x4: 73.44, `hinton` 73.33; ResNet-50 → MobileNetV2: 58.58, below the 64.60 of no distillation.

    >>> at("stage2", "stage2")
    labels(smoothing=0.0) + 1000.0 * attention_transfer(student="stage2", teacher="stage2", power=2.0, form="code")
    """
    return labels() + weight * attention_transfer(student, teacher)


def sp(student: str | list[str] = "embedding", teacher: str | list[str] = "embedding", weight: float | Weight = 3000.0) -> Objective:
    """Similarity-preserving distillation: who resembles whom, beside the labels. Tung & Mori 2019, arXiv:1907.09682.

        CE + γ ‖G_s − G_t‖² / B²

    student, teacher: the paper takes the last maps; "embedding", their mean, is in every model. weight: γ, 3000, in the authors' unit.

    CIFAR-100, ResNet-32x4 → ResNet-8x4: 72.94, `hinton` 73.33, none 72.50.

    >>> sp()
    labels(smoothing=0.0) + 3000.0 * similarity_preserving(student="embedding", teacher="embedding")
    """
    return labels() + weight * similarity_preserving(student, teacher)


def rkd(
    student: str | list[str] = "embedding", teacher: str | list[str] = "embedding", distance: float = 25.0, angle: float = 50.0
) -> Objective:
    """Relational distillation: distances and angles between rows, beside the labels. Park et al. 2019, arXiv:1904.05068.

        CE + λ_D L_D + λ_A L_A

    distance, angle: λ, 25 and 50 for classification, in the authors' unit: means over all pairs and triplets.

    CIFAR-100, ResNet-32x4 → ResNet-8x4: 71.90, below the 72.50 of no distillation; the paper's own use is metric learning.

    >>> rkd(angle=0.0)
    labels(smoothing=0.0) + 25.0 * rkd_distance(student="embedding", teacher="embedding")
    """
    goal = as_objective(labels())
    if distance:
        goal = goal + distance * rkd_distance(student, teacher)
    return goal + angle * rkd_angle(student, teacher) if angle else goal


def decoupled_kd(alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, until: float = 0.0833) -> Objective:
    """DKD: target and other outcomes apart, warmed up, beside the labels. Zhao et al. 2022, arXiv:2203.08679.

        CE + min(epoch / 20, 1) T² (α TCKD + β NCKD)

    alpha, beta, temperature: see `dkd`; β is tuned by pair, from 1 to 10. until: the warm-up's share of training, 20 of 240 epochs. The
    unit is the authors'.

    CIFAR-100, ResNet-32x4 → ResNet-8x4: 76.32, `hinton` 73.33. In our pilot, 10 classes and a small student, β = 8 cost 8 to 10 points.

    >>> decoupled_kd()
    labels(smoothing=0.0) + ramp(start=0.0, stop=1.0, until=0.0833) * dkd(alpha=1.0, beta=8.0, temperature=4.0, target="label")
    """
    return labels() + ramp(0, 1, until=until) * dkd(alpha=alpha, beta=beta, temperature=temperature)


def dist_kd(beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> Objective:
    """DIST, "knowledge distillation from a stronger teacher": correlations, beside the labels. Huang et al. 2022, arXiv:2205.10536.

        CE + β (1 − ρ of rows) + γ (1 − ρ of columns)

    beta, gamma, temperature: see `dist`. The authors' code for classification multiplies by τ²: with its numbers, write β τ² and γ τ² here.

    ImageNet, a strongly trained ResNet-50 → ResNet-18: 74.5, where KD's 72.6 falls below the 73.4 of no distillation.

    >>> dist_kd()
    labels(smoothing=0.0) + dist(beta=1.0, gamma=1.0, temperature=1.0)
    """
    return labels() + dist(beta=beta, gamma=gamma, temperature=temperature)


def logit_standardisation(temperature: float = 2.0, weight: float | Weight = 9.0, label_weight: float = 0.1) -> Objective:
    """KD of standardised logits, beside the labels. Sun et al. 2024, arXiv:2403.01427; numbers of its code.

        w T² KL(Z(z_t)/T ‖ Z(z_s)/T) + 0.1 CE

    weight: 9, where the plain KD that the paper compares with has 0.9: part of the gain is the tenfold weight.

    CIFAR-100, ResNet-32x4 → ResNet-8x4: 76.62, plain KD 73.33.

    >>> logit_standardisation()
    9.0 * standardised(kl(temperature=2.0)) + 0.1 * labels(smoothing=0.0)
    """
    return weight * standardised(kl(temperature=temperature)) + label_weight * labels()


def simkd(student: str = "projected", teacher: str = "embedding") -> Objective:
    """SimKD: the student's features become the teacher's, whose head answers; no labels. Chen et al. 2022, arXiv:2203.14001.

        mean (r(f_s) − f_t)²

    student: of `graft(student, onto=teacher)`, what its projector makes of the student's features and the teacher's head reads. teacher:
    what that head reads in the teacher. The authors compare maps before they are averaged, this compares vectors; the mean over elements is
    theirs, and its weight is without effect, for there is nothing else.

    CIFAR-100, ResNet-32x4 → ResNet-8x4: 78.08, the highest of the published tables; part of it are the projector's weights in the student.

    >>> simkd()
    hint(student="projected", teacher="embedding", align="identity")
    """
    return as_objective(hint(student, teacher, align="identity"))


def srrl(student: str = "projected", teacher: str = "embedding", regrasped: str = "regrasped") -> Objective:
    """SRRL: features, and what the teacher's head makes of them, beside the labels. Yang et al. 2021, ICLR.

        CE + mean (r(f_s) − f_t)² + mean (h_t(r(f_s)) − z_t)²

    student, regrasped: taps of `graft(student, onto=teacher, output="student")`. Weights of 1, means over elements: the authors'.

    CIFAR-100, ResNet-32x4 → ResNet-8x4: 75.39, `simkd` 78.08, KD 74.42 (the table of SimKD). Unlike `simkd` the student ships without
    projector and with its own head.

    >>> print(repr(srrl()).replace(" + ", "\\n+ "))
    labels(smoothing=0.0)
    + hint(student="projected", teacher="embedding", align="identity")
    + regrasp(student="regrasped")
    """
    return labels() + hint(student, teacher, align="identity") + regrasp(regrasped)


def distilbert(student: str = "hidden", teacher: str = "hidden", temperature: float = 2.0) -> Objective:
    """DistilBERT: KL, labels and the direction of the last hidden states. Sanh et al. 2019, arXiv:1910.01108; the README's command.

        5 T² KL(p_T ‖ q_T) + 2 CE + 1 (1 − cos(h_s, h_t))

    The authors' numbers for language modelling, where CE is of masked tokens; of a classification it is of labels. Their unit is attar's:
    batchmean and T². `hf(...)` and `shrink(...)` make students; theirs begins as every other layer of the teacher.

    97 % of BERT-base on GLUE with 40 % fewer weights, 60 % faster.

    >>> print(repr(distilbert()).replace(" + ", "\\n+ "))
    5.0 * kl(temperature=2.0)
    + 2.0 * labels(smoothing=0.0)
    + cosine_hidden(student="hidden", teacher="hidden", align="auto")
    """
    return 5 * kl(temperature=temperature) + 2 * labels() + cosine_hidden(student, teacher)


def tinybert(step: int, blocks: int, answers: float | Weight = 1.0) -> Objective:
    """TinyBERT: embeddings, hidden states and attention scores of every step-th block, and the answers. Jiao et al. 2020, arXiv:1909.10351.

        Σ_m mean (H_m W − H_{step·m})² + Σ_m mean (A_m − A_{step·m})² + w KL(p ‖ q),   m = 1..blocks, and m = 0 for hidden states

    step: the teacher's blocks over the student's. blocks: the student's. answers: w, at T = 1.
    The authors' answers are a soft cross-entropy averaged over batch and outcomes: in their unit w is 1/C here, 1/(C T²) at another T, and
    the teacher's entropy is no part of it. They train inside first and answers afterwards, where neither weight has an effect with Adam:
    `answers=ramp(0, 1)` goes from one to the other. Both models need as many heads; else `minilmv2`.

    More than 96 % of BERT-base on GLUE with 4 blocks, by two stages and augmented data.

    >>> print(repr(tinybert(3, blocks=1)).replace(" + ", "\\n+ "))
    hidden_states(student=["hidden.0", "hidden.1"], teacher=["hidden.0", "hidden.3"], align="auto")
    + attention_scores(student="attention.1", teacher="attention.3")
    + kl(temperature=1.0)
    """
    inside = hidden_states(every(1, blocks), every(step, blocks))
    return inside + attention_scores(every(1, blocks, "attention"), every(step, blocks, "attention")) + answers * kl(temperature=1.0)
