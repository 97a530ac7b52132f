from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from attar.identity import digest, digest_file, uniform


def test_length_and_type_enter_a_digest() -> None:
    parts: list[tuple[object, ...]] = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (b"abc",),
        (1,),
        ("1",),
        (True,),
        (1.0,),
        (["a", "b"],),
        (["ab"],),
        (["a"], ["b"]),
        (np.zeros(3),),
        (np.zeros(3, np.float32),),
        (np.zeros((3, 1)),),
        (None,),
        ("None",),
    ]
    assert len({digest(*p) for p in parts}) == len(parts)  # pyright: ignore[reportArgumentType] of what it does not say it takes, too


def test_a_digest_is_the_same_on_every_machine() -> None:
    fed = b"s11;str:'attar'" + b"s5;int:1" + b"a<i8(3,);" + b"".join(i.to_bytes(8, "little") for i in range(3))
    assert digest("attar", 1, np.arange(3, dtype=np.int64)) == hashlib.blake2b(fed, digest_size=16).hexdigest()


def test_strided_arrays_count_as_their_content() -> None:
    array = np.arange(12).reshape(3, 4)
    assert digest(array[:, ::2]) == digest(np.ascontiguousarray(array[:, ::2]))


def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"x" * (3 << 20))
    b.write_bytes(b"x" * (3 << 20) + b"y")
    assert digest_file(a) == digest_file(a) != digest_file(b)


def test_uniform_is_uniform_and_depends_on_id_and_salt_only() -> None:
    ids = np.arange(-50_000, 50_000)
    u = uniform(ids, "split")
    counts = np.histogram(u, bins=100, range=(0, 1))[0]
    chi2 = float(((counts - 1000.0) ** 2 / 1000.0).sum())
    assert chi2 < 150  # 99 degrees of freedom: beyond 150 once in 1,500 draws
    assert u.min() >= 0 and u.max() < 1
    order = np.random.default_rng(0).permutation(len(ids))
    np.testing.assert_array_equal(uniform(ids[order], "split"), u[order])
    other = uniform(ids, "fold")
    assert abs(float(np.corrcoef(u, other)[0, 1])) < 0.02


@pytest.mark.parametrize("ids", [np.array([2**63 - 1, -(2**63)]), np.array([], dtype=np.int64)])
def test_uniform_bears_extreme_ids(ids: np.ndarray) -> None:
    assert uniform(ids, "s").shape == ids.shape
