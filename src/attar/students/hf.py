"""Transformers that read text: begun from a Hugging Face folder, or from chance by an architecture's name."""

from __future__ import annotations

from attar.ends import at_least
from attar.errors import StudentError, near
from attar.notation import InPath
from attar.pretrained.text import ENCODERS
from attar.pretrained.transformer import Transformer

__all__ = ["hf"]


def hf(
    path: InPath | None = None,
    config: str | None = None,
    layers: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    tokenizer: InPath | None = None,
    vocabulary: InPath | None = None,
    max_length: int = 128,
    freeze: int = 0,
) -> Transformer:
    """A transformer over tokens: texts → (B, C) logits, or for embeddings (B, K, D) vectors.

    path: a folder to begin from, "package:NAME/folder" inside an installed package; its encoder is kept, a head is new.
    config: or an architecture, "bert", "distilbert", "electra", "roberta" or "xlm-roberta", with random weights: then `layers` (2 where
        left out) of `width` (128) with `heads` (one for each 64 of width), 4 × width between, and `tokenizer` is needed.
    tokenizer: a tokenizer.json, or a folder that has one.
    vocabulary: a file of text, or a folder of such: only tokens that occur there are kept, all others are [UNK]. Name training text: what
        is read there is what the student will know. It makes the file smaller, not faster: of MiniLM half is its table of tokens.
    max_length: tokens of a text, [CLS] and its like included.
    freeze: layers from below, the embeddings with them, that stay as they are; as many as there are leaves the head alone to learn. What
        frozen layers answer is remembered for each text, so that an epoch costs what is left.

    One vector is made of the tokens as the folder says, else by their mean. Of two texts a pair is read together, for embeddings each by
    itself. A model that is begun from a folder wants a learning rate of 5e-5 to 5e-4, and few epochs. All of it in the teacher's place is
    `taught(hf(path), at=…)`. To begin from fewer layers, heads or channels: `shrink(hf(path), …)`.

    Raises StudentError for arguments that do not go together, heads that do not divide the width, more frozen layers than there are.

    >>> hf(config="bert", layers=1, width=64, tokenizer="folder")
    hf(config="bert", layers=1, width=64, heads=1, tokenizer="folder", max_length=128, freeze=0)
    """
    at_least("hf", max_length=(max_length, 3), freeze=(freeze, 0))
    if (path is None) == (config is None):
        given = "neither" if path is None else "both"
        raise StudentError(f"hf(): a folder or config=, {given} is given", hint='hf("folder"), or hf(config="bert", tokenizer="folder")')
    if path is not None:
        if given := [name for name, value in (("layers", layers), ("width", width), ("heads", heads), ("tokenizer", tokenizer)) if value]:
            raise StudentError(f"hf({path!r}, {given[0]}=…): a folder has its own", hint=f"shrink(hf({path!r}), layers=…) makes it smaller")
        return Transformer(path, vocabulary=vocabulary, max_length=max_length, freeze=freeze)
    assert config is not None
    if config not in ENCODERS:
        raise StudentError(f"hf(config={config!r}): there is no such architecture here", hint=near(config, ENCODERS))
    if tokenizer is None:
        raise StudentError(f"hf(config={config!r}) has no tokenizer", hint="tokenizer= names a tokenizer.json, or a folder that has one")
    if freeze:
        raise StudentError(f"hf(config={config!r}, freeze={freeze}): weights of chance would be frozen", hint="leave freeze out")
    layers, width = 2 if layers is None else layers, 128 if width is None else width
    heads = max(1, width // 64) if heads is None else heads
    at_least("hf", layers=(layers, 1), width=(width, 1), heads=(heads, 1))
    if width % heads:
        fitting = max(h for h in range(1, heads) if width % h == 0)
        raise StudentError(f"hf(width={width}, heads={heads}): {heads} heads do not divide {width}", hint=f"heads={fitting}")
    return Transformer(None, config, layers, width, heads, tokenizer, vocabulary, max_length)
