"""Every source keeps the contract of sources; the contract notices sources that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attar.signal import NOTHING, Batch, Signal, Source
from attar.sources import adjusted, cached, corrected, ensemble, estimator, hard, lightgbm, module, shuffled, smooth, taught, xgboost
from attar.sources.taught import Taught
from attar.testing.small import SmallCNN, SmallMLP, fitted, small_images, small_table
from attar.testing.sources import check_answers, check_fingerprint, check_rows, check_source, check_taps
from attar.verbs.teach import teach

TABLE, NUMBERS, IMAGES = small_table(400), small_table(400, kind="regression"), small_images(120)
ROWS = torch.arange(12)


def table_batch() -> Batch:
    return TABLE.test.batch(ROWS)


def nudged(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] += 1e-3
    return net


def test_a_module_keeps_the_contract() -> None:
    net = fitted(SmallMLP(TABLE.schema), TABLE, steps=5)
    source = module(net)

    def changed() -> list[Source]:
        return [module(nudged(net)), module(net, classes=["yes", "no"])]

    check_source(source, table_batch(), outcomes=2, taps=["hidden", "head"], changed=changed)


def test_a_module_with_batch_normalisation_is_asked_in_evaluation_mode() -> None:
    net = SmallCNN(IMAGES.schema).train()
    check_source(module(net), IMAGES.test.batch(ROWS), outcomes=3, taps=["body.0", "body.9"], changed=lambda: [module(nudged(net))])


def forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    rows = TABLE.train.batch(torch.arange(100))
    assert not isinstance(rows.inputs, Tensor)
    assert rows.labels is not None
    X = np.nan_to_num(rows.inputs["numbers"].numpy().astype(np.float64))
    return RandomForestClassifier(5, max_depth=3, random_state=0).fit(X, rows.labels.numpy())


def filled(batch: Batch) -> np.ndarray:
    assert not isinstance(batch.inputs, Tensor)
    return np.nan_to_num(batch.inputs["numbers"].numpy().astype(np.float64))


def test_an_estimator_keeps_the_contract() -> None:
    model = forest()
    source = estimator(model, classes=["no", "yes"], reads=filled)

    def changed() -> list[Source]:
        floor = estimator(model, classes=["no", "yes"], reads=filled, floor=1e-3)
        other = estimator(forest().set_params(n_estimators=6), classes=["no", "yes"], reads=filled)
        return [floor, other, estimator(model, classes=["yes", "no"], reads=filled)]

    check_source(source, table_batch(), outcomes=2, changed=changed)


def boosted(path: Path, seed: int = 0) -> Path:
    import lightgbm as lgb

    rows = TABLE.train.batch(torch.arange(100))
    assert not isinstance(rows.inputs, Tensor)
    assert rows.labels is not None
    names = [c.name for c in TABLE.schema.numbers]
    X, y = rows.inputs["numbers"].numpy().astype(np.float64), rows.labels.numpy()
    settings = {"objective": "binary", "num_leaves": 4, "verbosity": -1, "num_threads": 1, "seed": seed, "bagging_fraction": 0.5}
    lgb.train(settings | {"bagging_freq": 1}, lgb.Dataset(X, y, feature_name=names), 4).save_model(path)
    return path


def test_a_lightgbm_file_keeps_the_contract(tmp_path: Path) -> None:
    source = lightgbm(str(boosted(tmp_path / "a.txt")))
    check_source(source, table_batch(), outcomes=2, changed=lambda: [lightgbm(str(boosted(tmp_path / "b.txt", 1)))])


def test_an_xgboost_file_keeps_the_contract(tmp_path: Path) -> None:
    import xgboost as xgb

    rows = TABLE.train.batch(torch.arange(100))
    assert not isinstance(rows.inputs, Tensor)
    assert rows.labels is not None
    data = xgb.DMatrix(rows.inputs["numbers"].numpy(), rows.labels.numpy(), feature_names=[c.name for c in TABLE.schema.numbers])
    for name, rounds in (("a.json", 3), ("b.ubj", 4)):
        xgb.train({"objective": "binary:logistic", "nthread": 1}, data, rounds).save_model(tmp_path / name)
    source = xgboost(str(tmp_path / "a.json"))
    check_source(source, table_batch(), outcomes=2, changed=lambda: [xgboost(str(tmp_path / "b.ubj"))])


def two() -> tuple[Source, Source]:
    return module(SmallMLP(TABLE.schema, 1)), module(SmallMLP(TABLE.schema, 2))


def test_an_ensemble_keeps_the_contract() -> None:
    a, b = two()
    check_source(ensemble(a, b), table_batch(), outcomes=2, changed=lambda: [ensemble(a), ensemble(b), ensemble(a, b, weights=[2, 1])])


def test_an_ensemble_by_confidence_keeps_the_contract() -> None:
    a, b = two()
    check_source(ensemble(a, b, weights="confidence"), table_batch(), outcomes=2, changed=lambda: [ensemble(a, b)])

    def changed() -> list[Source]:
        other = ensemble(a, b, weights="confidence").told(TABLE.test)
        return [ensemble(a, b, weights="confidence"), other, ensemble(b, a, weights="confidence").told(TABLE.train)]

    check_source(ensemble(a, b, weights="confidence").told(TABLE.train), TABLE.train.batch(ROWS), outcomes=2, changed=changed)


def test_a_corrected_teacher_keeps_the_contract() -> None:
    a, b = two()
    others: list[Source] = [corrected(a, margin=0.1), corrected(a, wrong_only=True), corrected(b), corrected(a).told(TABLE.train)]
    check_source(corrected(a), table_batch(), outcomes=2, taps=["head"], changed=lambda: others)
    told = corrected(cached(a)).told(TABLE.train)
    check_source(told, TABLE.train.batch(ROWS), outcomes=2, taps=["hidden"], changed=lambda: [corrected(a).told(TABLE.test)])


def test_an_adjusted_teacher_keeps_the_contract() -> None:
    a, b = two()
    others: list[Source] = [adjusted(a, tau=0.5).told(TABLE.train), adjusted(b).told(TABLE.train), adjusted(a)]
    check_source(adjusted(a).told(TABLE.train), table_batch(), outcomes=2, taps=["head"], changed=lambda: others)


def test_the_hard_control_keeps_the_contract() -> None:
    a, b = two()
    check_source(hard(a), table_batch(), outcomes=2, taps=["head"], changed=lambda: [hard(a, epsilon=1e-3), hard(b)])
    check_source(hard(cached(a)), table_batch(), outcomes=2, changed=lambda: [hard(b)])


def test_the_shuffled_control_keeps_the_contract() -> None:
    net = module(SmallCNN(IMAGES.schema))
    check_source(shuffled(net), IMAGES.train.batch(ROWS), outcomes=3, taps=["body.0"], changed=lambda: [shuffled(net, seed=1)])
    a, b = two()
    source = shuffled(a).over(TABLE.train)

    def changed() -> list[Source]:
        others: list[Source] = [shuffled(b).over(TABLE.train), shuffled(a, seed=1).over(TABLE.train), shuffled(a).over(TABLE.test)]
        return others

    check_source(source, TABLE.train.batch(ROWS), outcomes=2, taps=["hidden"], changed=changed)


def test_the_smooth_control_keeps_the_contract() -> None:
    a, _ = two()
    check_source(smooth(a), table_batch(), outcomes=2, changed=lambda: [smooth(a, smoothing=0.2)])
    check_source(smooth(a).over(TABLE.train), TABLE.train.batch(ROWS), outcomes=2, changed=lambda: [smooth(a, 0.2).over(TABLE.train)])


def test_taught_trees_keep_the_contract(tmp_path: Path) -> None:
    def tree(name: str, seed: int = 0) -> Taught:
        return taught(lightgbm(trees=6, leaves=4, min_rows=5), at=str(tmp_path / name), folds=2, seed=seed)

    source = teach(tree("a.txt"), TABLE)
    check_source(source, TABLE.train.batch(ROWS), outcomes=2, changed=lambda: [teach(tree("b.txt", 1), TABLE)])
    numbers = teach(tree("c.txt"), NUMBERS)
    check_source(numbers, NUMBERS.train.batch(ROWS), outcomes=1)


def test_taught_nets_keep_the_contract(tmp_path: Path) -> None:
    from attar.loop import fit

    def net(name: str, seed: int = 0) -> Source:
        teacher = taught(SmallCNN, at=str(tmp_path / name), folds=2, seed=seed)
        return teach(teacher, IMAGES, fit=fit(epochs=1, threads=1))

    mixed = torch.cat([ROWS, ROWS])
    source = net("a.safetensors")
    check_source(source, IMAGES.train.batch(mixed), outcomes=3, changed=lambda: [net("b.safetensors", 1)])
    check_source(source, IMAGES.test.batch(ROWS), outcomes=3)


class Bad:
    """A source that breaks one clause."""

    fingerprint = "bad"

    def __init__(self, answer: Callable[[Tensor], Tensor], taps: Callable[[frozenset[str]], dict[str, Tensor]] = lambda _: {}) -> None:
        self.answer, self.taps = answer, taps

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        assert isinstance(batch.inputs, Tensor)
        return Signal(self.answer(batch.inputs), self.taps(taps))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        return lambda: None


ASKED = Batch(torch.arange(24.0).reshape(8, 3))


@pytest.mark.parametrize(
    ("answer", "clause"),
    [
        (lambda x: x * torch.ones(1, requires_grad=True), "keeps a gradient"),
        (lambda x: x[:-1], "8 rows, 7 answers"),
        (lambda x: x[:, :2], "the last axis is 2"),
        (lambda x: x.long(), "logits are floats"),
        (lambda x: x / 0 * 0, "NaN"),
        (lambda x: x + torch.rand(()), "another answer"),
    ],
)
def test_a_source_whose_answers_are_wrong_is_noticed(answer: Callable[[Tensor], Tensor], clause: str) -> None:
    with pytest.raises(AssertionError, match=clause):
        check_answers(Bad(answer), ASKED, 3)


def test_an_answer_of_inference_mode_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="Inference tensors"):
        check_answers(Bad(torch.inference_mode()(lambda x: x * 2)), ASKED, 3)


def test_a_source_that_looks_at_the_rows_beside_is_noticed() -> None:
    with pytest.raises(AssertionError, match="otherwise"):
        check_rows(Bad(lambda x: (x - x.mean(0)) / x.std(0)), ASKED)


def test_a_source_with_the_wrong_taps_is_noticed() -> None:
    extra = Bad(lambda x: x, lambda taps: {"a": torch.ones(8), "b": torch.ones(8)} if taps else {})
    with pytest.raises(AssertionError, match="asked for 'a'"):
        check_taps(extra, ASKED, ["a"])
    silent = Bad(lambda x: x, lambda taps: {name: torch.ones(8) for name in taps})
    with pytest.raises(AssertionError, match="nobody said so"):
        check_taps(silent, ASKED, [])


def test_a_fingerprint_that_stays_is_noticed() -> None:
    with pytest.raises(AssertionError, match="same fingerprint"):
        check_fingerprint(Bad(lambda x: x), lambda: [Bad(lambda x: 2 * x)])
