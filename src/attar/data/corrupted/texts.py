"""Corruptions of texts: what haste, keyboards and forms do to them. A text that is not there stays away, and no other one becomes blank.

Which letters and words are hit grows with severity: what is hit at one is hit at every higher one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from attar.data.draws import uniforms
from attar.identity import mix
from attar.signal import Inputs, Texts

__all__ = ["KINDS", "changes"]

Change = Callable[[Mapping[str, Texts], np.ndarray, int], Inputs]

TYPOS = (0.02, 0.05, 0.1, 0.15, 0.2)  # share of letters
CASING = (0.1, 0.25, 0.5, 0.75, 1.0)  # share of words
TRUNCATION = (0.9, 0.75, 0.5, 0.35, 0.2)  # share of the text that is left
WORD_DROPOUT = (0.05, 0.1, 0.2, 0.3, 0.5)  # share of words
ROWS_OF_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")

KINDS = {
    "typos": "letters exchanged, doubled, left out, or hit on the next key",
    "casing": "words in capitals",
    "truncation": "the end is cut off",
    "word_dropout": "words are left out",
}


def changes() -> dict[str, Change | str]:
    """What does each kind to texts."""
    words = {"typos": _typos, "casing": _casing, "truncation": _truncated, "word_dropout": _thinned}
    return {name: partial(_each, change) for name, change in words.items()}


def _each(change: Callable[[str, np.uint64, int], str], inputs: Mapping[str, Texts], keys: np.ndarray, severity: int) -> Inputs:
    out = {}
    for place, (name, texts) in enumerate(inputs.items()):
        with np.errstate(over="ignore"):
            own = mix(keys + np.uint64(place))
        made = [change(text, key, severity) if text else text for text, key in zip(texts, own, strict=True)]
        out[name] = Texts([new if new and not new.isspace() else text for new, text in zip(made, texts, strict=True)])
    return out


def _typos(text: str, key: np.uint64, severity: int) -> str:
    """Each letter may be exchanged with the next one, doubled, left out, or replaced by one beside it on a QWERTY keyboard."""
    hit, way, beside = _draws(key, 3, len(text))
    out: list[str] = []
    waiting = ""  # the letter that the next one has overtaken
    for i, letter in enumerate(text):
        if not letter.isalpha() or hit[i] >= TYPOS[severity - 1] or waiting:
            out += [letter, waiting]
            waiting = ""
        elif way[i] < 0.25 and i + 1 < len(text) and text[i + 1].isalpha():
            waiting = letter
        elif way[i] < 0.5:
            out += [letter, letter]
        elif way[i] < 0.75 and (near := _BESIDE.get(letter.lower())):
            other = near[int(beside[i] * len(near))]
            out.append(other.upper() if letter.isupper() else other)
    return "".join([*out, waiting])


def _casing(text: str, key: np.uint64, severity: int) -> str:
    """Words in capitals; one that has them already in small letters."""
    words = text.split(" ")
    (hit,) = _draws(key, 1, len(words))
    turned = (w.lower() if w == w.upper() else w.upper() for w in words)
    return " ".join(new if h < CASING[severity - 1] else word for word, new, h in zip(words, turned, hit, strict=True))


def _truncated(text: str, key: np.uint64, severity: int) -> str:
    """The beginning, by characters, so that it cuts texts of every script; it may end within a word, as in a field of a form."""
    del key
    whole = text.strip()
    return whole[: max(1, math.ceil(TRUNCATION[severity - 1] * len(whole)))].rstrip()


def _thinned(text: str, key: np.uint64, severity: int) -> str:
    """Words left out; one stays at least."""
    words = text.split()
    (hit,) = _draws(key, 1, len(words))
    stays = hit >= WORD_DROPOUT[severity - 1]
    if stays.all():
        return text
    stays[int(hit.argmax())] = True
    return " ".join(word for word, stay in zip(words, stays, strict=True) if stay)


def _draws(key: np.uint64, many: int, each: int) -> np.ndarray:
    """(many, each) in [0, 1)."""
    with np.errstate(over="ignore"):
        return uniforms(mix(np.array([key]) + np.arange(many, dtype=np.uint64)), each)


def _neighbours() -> dict[str, str]:
    found = {}
    for row, keys in enumerate(ROWS_OF_KEYS):
        for at, key in enumerate(keys):
            near = [(row, at - 1), (row, at + 1), (row - 1, at), (row - 1, at + 1), (row + 1, at - 1), (row + 1, at)]
            found[key] = "".join(ROWS_OF_KEYS[r][c] for r, c in near if 0 <= r < len(ROWS_OF_KEYS) and 0 <= c < len(ROWS_OF_KEYS[r]))
    return found


_BESIDE = _neighbours()
