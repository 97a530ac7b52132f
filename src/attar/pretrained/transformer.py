"""What builds a transformer over texts: begun from a folder, or from chance by an architecture's name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from torch import nn

from attar.ends import Head, seeded
from attar.errors import StudentError
from attar.notation import located, say
from attar.pretrained.freezing import frozen
from attar.pretrained.text import Encoder, Folder, Pool, fresh_body, load_body, open_folder, pruned
from attar.reading import TextModel, Tokens
from attar.reading.text import TOKENIZER
from attar.signal import Schema

__all__ = ["Transformer", "kept_ids", "need_texts", "tokenizer_of", "unknown_of"]

Memo = dict[tuple[str, ...], Tokens]


@dataclass(frozen=True, repr=False)
class Transformer:
    """What `hf` describes; called with (schema, seed) it builds a TextModel.

    path: of the folder that it begins from; or config, layers, width, heads and tokenizer of one that begins from chance.
    vocabulary: where the texts are whose tokens are kept. freeze: layers from below that stay as they are.
    """

    path: str | None = None
    config: str | None = None
    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    tokenizer: str | None = None
    vocabulary: str | None = None
    max_length: int = 128
    freeze: int = 0
    _readings: Memo = field(default_factory=dict, init=False, compare=False)

    def __repr__(self) -> str:
        first = () if self.path is None else (self.path,)
        names = ("config", "layers", "width", "heads", "tokenizer", "vocabulary", "max_length", "freeze")
        return say("hf", *first, **{name: getattr(self, name) for name in names})

    def __call__(self, schema: Schema, seed: int) -> TextModel:
        need_texts(self, schema)
        if self.path is None:
            return self.model(self._fresh(schema, seed), schema)
        folder = self.folder
        with seeded(seed):
            head = None if schema.embeds else Head(folder.width, schema)
            pool = Pool(folder.pooling, folder.normalised and schema.embeds)
            if self.freeze:
                return self.model(frozen(folder, self.kept, self.freeze, pool, head, repr(self)), schema)
            return self.model(Encoder(pruned(load_body(folder), self.kept), pool, head), schema)

    def _fresh(self, schema: Schema, seed: int) -> Encoder:
        assert self.config is not None and self.layers and self.width and self.heads
        reading = self.reading(schema)
        shape = {"layers": self.layers, "width": self.width, "heads": self.heads, "pad": reading.pad}
        with seeded(seed):
            body = fresh_body(self.config, vocabulary=reading.vocabulary, positions=max(512, self.max_length), **shape)
            return Encoder(body, Pool("mean", False), None if schema.embeds else Head(self.width, schema))

    def model(self, net: nn.Module, schema: Schema) -> TextModel:
        """`net` with the reading that it needs."""
        return TextModel(self.reading(schema), net, schema.texts, each=schema.embeds)

    @property
    def folder(self) -> Folder:
        """Of what it begins from. Raises StudentError where there is none, or where it is too short for `max_length`."""
        if self.path is None:
            raise StudentError(f"{self!r} begins from chance", hint="name a folder: hf(path)")
        folder = open_folder(self.path)
        if self.max_length > folder.positions:
            raise StudentError(f"{self!r}: it numbers up to {folder.positions} tokens", hint=f"max_length={folder.positions}")
        return folder

    def reading(self, schema: Schema) -> Tokens:
        """Of one text, or of two as a pair; the same object each time, so that all that is built shares what was read."""
        together = 1 if schema.embeds else len(schema.texts)
        if self.path is not None:
            names = self.folder.pairs if together > 1 else self.folder.names
        else:
            typed = together > 1 and self.config in ("bert", "electra")
            names = ("input_ids", "attention_mask", "token_type_ids") if typed else ("input_ids", "attention_mask")
        if names not in self._readings:
            kept = self.kept
            unknown = 0 if kept is None else kept.index(self.unknown)
            self._readings[names] = Tokens(self.definition, self.max_length, names, kept=kept, unknown=unknown)
        return self._readings[names]

    @cached_property
    def definition(self) -> str:
        """Of the tokenizer."""
        if self.path is not None:
            return self.folder.tokenizer
        assert self.tokenizer is not None
        return tokenizer_of(self.tokenizer)

    @cached_property
    def unknown(self) -> int:
        """The tokenizer's id of what it does not know."""
        return unknown_of(self.definition)

    @cached_property
    def kept(self) -> tuple[int, ...] | None:
        """Ids of the tokens that `vocabulary` leaves, in order; None: all."""
        return None if self.vocabulary is None else kept_ids(self.definition, self.vocabulary)


def need_texts(who: object, schema: Schema) -> None:
    """Raise StudentError for data that are not texts."""
    if schema.kind != "text":
        raise StudentError(f"{who!r} reads texts, the data are of the kind {schema.kind!r}", hint="mlp() reads tables, cnn() images")


def tokenizer_of(path: str) -> str:
    """The content of a tokenizer.json, or of the one in a folder. Raises StudentError where there is none."""
    place = located(path)
    file = place / TOKENIZER if place.is_dir() else place
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudentError(f"no tokenizer at {path}: {error}", hint=f"name a {TOKENIZER}, or a folder that has one") from error


def unknown_of(definition: str) -> int:
    """The id of a tokenizer's token for what it does not know. Raises StudentError where it has none."""
    tokens = Tokens(definition)
    for name in ("[UNK]", "<unk>", "<|unk|>"):
        if (found := tokens.tokenizer.token_to_id(name)) is not None:
            return found
    raise StudentError(
        "this tokenizer has no token for what it does not know, so that no token can be left out", hint="leave vocabulary= out"
    )


_WHOLE = 1 << 20  # tokens of a line: a long one is not to lose the words at its end


@lru_cache(maxsize=8)
def kept_ids(definition: str, vocabulary: str) -> tuple[int, ...]:
    """Ids of the tokens that occur in a text file, or in the files of a folder, and of all special ones; ascending."""
    place = located(vocabulary)
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    tokens = Tokens(definition, max_length=_WHOLE, special=False)
    found = {i for i, token in tokens.tokenizer.get_added_tokens_decoder().items() if token.special} | {unknown_of(definition)}
    special = len(found)
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise StudentError(f"vocabulary={vocabulary!r}: {error}", hint="name a file of text, or a folder of such") from error
        for start in range(0, len(lines), 4096):
            found.update(i for ids, _ in tokens.encode([(line,) for line in lines[start : start + 4096]]) for i in ids.tolist())
    if len(found) == special:
        raise StudentError(f"vocabulary={vocabulary!r} holds no text", hint="name a file of text, or a folder of such")
    return tuple(sorted(found))
