"""An embedding teacher in fewer coordinates says what can be said of it in so many, and no more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.notation import read
from attar.signal import Batch, Schooled, Stored, Texts
from attar.sources import cached, module, pca
from attar.sources.told import Told, told
from attar.testing.sources import check_answers, check_fingerprint, check_rows
from attar.testing.texts import small_pairs, small_text_model

DATA = small_pairs(400)
ROWS = torch.arange(20)
TEACHER = module(small_text_model(DATA.schema, answers=8))


def vectors() -> np.ndarray:
    output = TEACHER(DATA.train.batch(torch.arange(len(DATA.train)))).output
    return output.reshape(-1, 8).double().numpy()


def test_it_keeps_the_contract_once_it_is_told() -> None:
    source = pca(TEACHER, dimensions=3).told(DATA.train)
    batch = DATA.test.batch(ROWS)
    check_answers(source, batch, 3)
    check_rows(source, batch)
    check_fingerprint(source, lambda: [pca(TEACHER, 4).told(DATA.train), pca(TEACHER, 3).told(DATA.valid), pca(TEACHER, 3)])
    assert isinstance(source, Told)
    assert isinstance(source, Schooled)


def test_as_many_components_as_coordinates_turn_and_lose_nothing() -> None:
    source, batch = pca(TEACHER, dimensions=8).told(DATA.train), DATA.test.batch(ROWS)
    mean = torch.from_numpy(vectors().mean(0)).float()
    whole, turned = TEACHER(batch).output - mean, source(batch).output
    torch.testing.assert_close(torch.cdist(turned[:, 0], turned[:, 1]), torch.cdist(whole[:, 0], whole[:, 1]), rtol=1e-4, atol=1e-5)
    assert source.components.explained.sum() == pytest.approx(1)


def test_it_answers_as_a_singular_value_decomposition_does() -> None:
    rows = vectors()
    _, _, right = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    batch = DATA.test.batch(ROWS)
    expected = (TEACHER(batch).output.double().numpy() - rows.mean(0)) @ right[:3].T
    found = pca(TEACHER, dimensions=3).told(DATA.train)(batch).output.numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)  # a component has no sign of its own


def test_told_again_it_is_the_same_again() -> None:
    source = pca(TEACHER, dimensions=3).told(DATA.train)
    again = told(told(pca(TEACHER, dimensions=3), DATA.train), DATA.train)
    assert again.fingerprint == source.fingerprint
    assert torch.equal(again(DATA.test.batch(ROWS)).output, source(DATA.test.batch(ROWS)).output)


def test_a_text_that_is_not_there_stays_zero() -> None:
    source = pca(TEACHER, dimensions=3).told(DATA.train)
    batch = Batch({"one": Texts(["sea1", ""]), "two": Texts(["", "sea1"])}, schema=DATA.schema)
    output = source(batch).output
    assert not output[0, 1].any() and not output[1, 0].any()
    assert bool(output[0, 0].any())


def test_over_stored_answers_it_is_stored() -> None:
    batch = DATA.test.batch(ROWS)
    assert batch.ids is not None
    store = cached(TEACHER)
    store(batch)
    source = pca(store, dimensions=3).told(DATA.train)
    assert isinstance(source, Stored)
    torch.testing.assert_close(source.signal(source.locate(batch.ids)).output, source(batch).output)
    assert not isinstance(pca(TEACHER), Stored)


def test_it_is_fitted_on_some_rows_of_many() -> None:
    asked: list[Tensor] = []

    class Many:
        ids, labels = torch.arange(5000), None

        def batch(self, index: Tensor, views: Tensor | None = None) -> Batch:
            asked.append(index)
            texts = Texts([f"sea{i % 6} wood{i % 5}" for i in index.tolist()])
            return Batch({"one": texts, "two": texts}, schema=DATA.schema)

    source = pca(TEACHER, dimensions=3).told(Many())
    assert asked == []  # nobody has asked yet
    source(DATA.test.batch(ROWS))
    source(DATA.test.batch(ROWS))
    rows = torch.cat(asked)
    assert len(rows) == 4096 == len(rows.unique())
    assert (int(rows.min()), int(rows.max())) == (0, 4999)


def test_asked_before_it_is_told_it_refuses() -> None:
    with pytest.raises(TeacherError, match=r"knows no rows to be fitted on\nhint: pca\(teacher\).told\(data.train\)"):
        pca(TEACHER, dimensions=3)(DATA.test.batch(ROWS))


def test_more_components_than_coordinates_are_refused() -> None:
    with pytest.raises(TeacherError, match="of 8 coordinates have no 9 components\nhint: dimensions=8"):
        pca(TEACHER, dimensions=9).told(DATA.train)(DATA.test.batch(ROWS))
    with pytest.raises(TeacherError, match="at least 1 is left"):
        pca(TEACHER, dimensions=0)


def test_its_text_reads_back() -> None:
    words = {"pca": pca, "teacher": lambda: TEACHER}
    assert repr(read("pca(teacher(), dimensions=3)", words)) == repr(pca(TEACHER, dimensions=3))
