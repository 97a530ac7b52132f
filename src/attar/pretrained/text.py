"""A text encoder or classifier from a local Hugging Face folder, or fresh from a configuration; nothing is fetched, nothing executed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from attar.errors import MissingExtra, TeacherError, TrustError, near
from attar.identity import digest, digest_file
from attar.notation import located

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = [
    "ENCODERS",
    "Classifier",
    "Encoder",
    "Folder",
    "Pool",
    "blocks_of",
    "fresh_body",
    "load_body",
    "load_classifier",
    "open_folder",
    "pruned",
]

Pooling = Literal["mean", "cls"]
ENCODERS = ("bert", "distilbert", "electra", "roberta", "xlm-roberta")  # whose shape we can name in three numbers
PICKLES = ("pytorch_model.bin", "model.bin", "tf_model.h5", "flax_model.msgpack")
BLOCKS = ("encoder.layer", "transformer.layer", "layers", "encoder.layers")  # where architectures keep their stack


@dataclass(frozen=True)
class Folder:
    """A model's folder, looked through: everything but the weights.

    path: as it was written, "package:…" included. home: where that is.
    tokenizer: the content of tokenizer.json. names: of the tensors that the model takes for one text; pairs: for two that are read
        together. positions: tokens that it can number.
    pooling, normalised: how a sentence encoder makes one vector of its tokens, as its modules.json says; else the mean, as it comes.
    classes: names of a classifier's outcomes, where it names them. outcomes: how many; 0 for an encoder.
    digest: of weights, configuration, tokenizer and pooling.
    """

    path: str
    home: Path
    config: PreTrainedConfig = field(repr=False)
    tokenizer: str = field(repr=False)
    names: tuple[str, ...]
    pairs: tuple[str, ...]
    positions: int
    pooling: Pooling
    normalised: bool
    classes: tuple[str, ...]
    outcomes: int
    digest: str

    @property
    def layers(self) -> int:
        return self.config.num_hidden_layers

    @property
    def width(self) -> int:
        return self.config.hidden_size

    @property
    def size_bytes(self) -> int:
        """Of the weights' files."""
        return sum(path.stat().st_size for path in _weights(self.home))


def open_folder(path: str) -> Folder:
    """Look through a folder with config.json, tokenizer.json and safetensors; remembered until a file in it changes.

    path: a folder, or "package:NAME/folder" inside an installed package.
    Raises TeacherError where something is missing, an architecture is not known, or tokenizer and embedding table do not fit each
    other; TrustError for weights that only exist as a pickle; MissingExtra.
    """
    home = located(path)
    if not home.is_dir():
        what = "is a file" if home.exists() else "is not there"
        raise TeacherError(f"{path} {what}", hint="name the folder that holds config.json, tokenizer.json and model.safetensors")
    stamp = tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(home.iterdir()) if p.is_file())
    return _look_through(path, home, stamp)


@lru_cache(maxsize=32)
def _look_through(path: str, home: Path, stamp: object) -> Folder:
    if not (home / "config.json").exists():
        raise TeacherError(f"{path} has no config.json", hint="a Hugging Face folder, as save_pretrained writes it, has one")
    if not _weights(home):
        if pickles := [name for name in PICKLES if (home / name).exists()]:
            raise TrustError(
                f"{path} holds its weights as {pickles[0]}, which could execute code",
                hint="load it where you trust it, and model.save_pretrained(folder, safe_serialization=True)",
            )
        raise TeacherError(f"{path} has no model.safetensors", hint="save_pretrained writes it")
    if not (home / "tokenizer.json").exists():
        raise TeacherError(f"{path} has no tokenizer.json", hint="AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes it")
    config = _config(path, home)
    definition = _text(home / "tokenizer.json")
    largest = _largest_id(definition, home / "tokenizer.json")
    if largest >= config.vocab_size:
        raise TeacherError(
            f"the tokenizer of {path} knows the id {largest}, the model's embedding table ends at {config.vocab_size - 1}",
            hint="they are of different models: copy both from one place",
        )
    pooling, normalised = _pooling(home)
    classifies = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    types = getattr(config, "type_vocab_size", 0)  # architectures differ in whether they have it at all
    plain = ("input_ids", "attention_mask")
    parts = [digest_file(p) for p in _weights(home)]
    return Folder(
        path,
        home,
        config,
        definition,
        plain,
        (*plain, "token_type_ids") if types > 1 else plain,
        _positions(config),
        pooling,
        normalised,
        _classes(config) if classifies else (),
        len(config.id2label or ()) if classifies else 0,
        digest("hugging face", parts, _text(home / "config.json"), definition, pooling, normalised),
    )


def _weights(home: Path) -> list[Path]:
    return sorted(home.glob("*.safetensors"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TeacherError(f"{path} is not text: {error}", hint="copy it again from where the model came from") from error


def _json(path: Path, text: str | None = None) -> Any:
    try:
        return json.loads(_text(path) if text is None else text)
    except ValueError as error:
        raise TeacherError(f"{path} is not JSON: {error}", hint="copy it again from where the model came from") from error


def _config(path: str, home: Path) -> PreTrainedConfig:
    held = _json(home / "config.json")
    if not isinstance(held, dict) or "model_type" not in held:
        raise TeacherError(f"config.json of {path} names no model_type", hint="it is not one that Hugging Face's library wrote")
    if "auto_map" in held:
        raise TrustError(f"{path} needs code of its own to be loaded", hint="only architectures of the library itself are loaded")
    try:
        from transformers import CONFIG_MAPPING, AutoConfig
    except ImportError as error:
        raise MissingExtra("transformers", "text") from error
    if held["model_type"] not in CONFIG_MAPPING:
        raise TeacherError(
            f"{path} is of the architecture {held['model_type']!r}, which the installed library does not know",
            hint=near(held["model_type"], CONFIG_MAPPING.keys()),
        )
    config = AutoConfig.from_pretrained(home, local_files_only=True, trust_remote_code=False)
    for name in ("vocab_size", "hidden_size", "num_hidden_layers"):
        if not isinstance(getattr(config, name, None), int):  # the library has no one class of encoders
            raise TeacherError(f"{path} is of the architecture {config.model_type!r}, which is no text encoder", hint=f"it has no {name}")
    return config


def _largest_id(definition: str, path: Path) -> int:
    """The largest id that a tokenizer.json knows: its vocabulary is a mapping, or a list of pairs."""
    held = _json(path, definition)
    try:
        vocabulary = held["model"]["vocab"]
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else range(len(vocabulary))
        return max([*ids, *(token["id"] for token in held.get("added_tokens", ()))])
    except (KeyError, TypeError, ValueError) as error:
        raise TeacherError(f"{path} holds no vocabulary", hint="copy it again from where the model came from") from error


def _pooling(home: Path) -> tuple[Pooling, bool]:
    """What modules.json and its Pooling say, as sentence encoders have them; the mean, as it comes, where they say nothing."""
    if not (home / "modules.json").exists():
        return "mean", False
    kinds = {str(module["type"]).rsplit(".", 1)[-1]: str(module["path"]) for module in _json(home / "modules.json")}
    if odd := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
        raise TeacherError(
            f"{home} goes through {', '.join(sorted(odd))} after its encoder", hint="pooling and normalisation are read, more is not"
        )
    said = _json(home / kinds["Pooling"] / "config.json") if (home / kinds.get("Pooling", "") / "config.json").exists() else {}
    modes = {name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for name, on in said.items() if on is True}
    modes &= {"cls", "mean", "max", "mean_sqrt_len", "weightedmean", "last", "lasttoken"}
    modes |= {said["pooling_mode"]} if isinstance(said.get("pooling_mode"), str) else set()
    if not modes <= {"mean", "cls"} or len(modes) > 1:
        raise TeacherError(f"{home} pools its tokens by {', '.join(sorted(modes))}", hint="mean and cls are known")
    return ("cls" if modes == {"cls"} else "mean"), "Normalize" in kinds


def _positions(config: PreTrainedConfig) -> int:
    most = getattr(config, "max_position_embeddings", 1 << 20)  # relative positions have no end
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    return most - offset


def _classes(config: PreTrainedConfig) -> tuple[str, ...]:
    names = tuple(str(name) for _, name in sorted((config.id2label or {}).items()))
    return () if names == tuple(f"LABEL_{i}" for i in range(len(names))) else names


# ------------------------------------------------------------------------------------------------------------------------ modules


class Pool(nn.Module):
    """States (B, L, D) and which tokens are real (B, L) → (B, D): their mean, or the first one's; of length 1 where normalised."""

    def __init__(self, pooling: Pooling, normalised: bool) -> None:
        super().__init__()
        self.pooling, self.normalised = pooling, normalised

    def extra_repr(self) -> str:
        return f"{self.pooling}, normalised={self.normalised}"

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            real = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * real).sum(1) / real.sum(1).clamp(min=1)
        return nn.functional.normalize(pooled, dim=-1) if self.normalised else pooled


class Encoder(nn.Module):
    """Tokens → one vector for each text, or what `head` makes of it: (N, L) int64 → (N, D), or (N, C).

    body: an encoder of the library. pool: its states → a vector. head: that vector → logits; None answers the vector.
    One tensor comes out and no branch looks at values, so that its graph exports for any number of texts and tokens.
    """

    def __init__(self, body: nn.Module, pool: Pool, head: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.pool, self.head = body, pool, head

    def tap_names(self) -> Mapping[str, str]:
        """`embedding` is the vector that the head reads, or that is the answer."""
        return {"embedding": "pool"}

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        kinds = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.body(input_ids=input_ids, attention_mask=attention_mask, return_dict=False, **kinds)[0]  # (N, L, D)
        pooled = self.pool(states, attention_mask)
        return pooled if self.head is None else self.head(pooled)


class Classifier(nn.Module):
    """Tokens → logits of a model that came with its own head: (N, L) int64 → (N, C)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        kinds = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.body(input_ids=input_ids, attention_mask=attention_mask, return_dict=False, **kinds)[0]


def load_body(folder: Folder) -> nn.Module:
    """A fresh copy of the folder's encoder, without its pooler and in evaluation mode; read from disk once in a process."""
    return copy.deepcopy(_loaded(folder.path, folder.digest, False))


def load_classifier(folder: Folder) -> nn.Module:
    """The same with the head that the folder brings."""
    return copy.deepcopy(_loaded(folder.path, folder.digest, True))


@lru_cache(maxsize=4)
def _loaded(path: str, mark: str, classifier: bool) -> nn.Module:
    """mark: the folder's digest, so that changed weights are read anew."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    folder = open_folder(path)
    kind = AutoModelForSequenceClassification if classifier else AutoModel
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):  # the library draws weights before it reads them
            body, found = kind.from_pretrained(
                folder.home,
                config=copy.deepcopy(folder.config),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TeacherError(
            f"{path} does not load: {reason}", hint="is the folder whole? does config.json belong to these weights?"
        ) from error
    lacking = sorted(name for name in found["missing_keys"] if "pooler." not in name and not name.endswith("position_ids"))
    if lacking:
        raise TeacherError(
            f"the weights of {path} lack {len(lacking)} that its architecture has: {', '.join(lacking[:3])}",
            hint="config.json is of another model than these weights",
        )
    return (body if classifier else without_pooler(body)).eval()


def fresh_body(config: str, *, layers: int, width: int, heads: int, vocabulary: int, positions: int = 512, pad: int = 0) -> nn.Module:
    """An encoder of the architecture `config` with random weights, drawn from the global generator; 4 × width between.

    config: one of ENCODERS. heads: must divide width. positions: tokens that it can number. pad: id of the token that fills up.
    """
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise MissingExtra("transformers", "text") from error
    offset = pad + 1 if config in ("roberta", "xlm-roberta") else 0
    shape: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions + offset,
        "pad_token_id": pad,
    }
    shape |= {"hidden_dim": 4 * width} if config == "distilbert" else {"intermediate_size": 4 * width}
    shape |= {"embedding_size": width} if config == "electra" else {}
    with _quiet():
        return without_pooler(AutoModel.from_config(AutoConfig.for_model(config, **shape), dtype=torch.float32))


def without_pooler(body: nn.Module) -> nn.Module:
    """The encoder without the layer that some have on top for a task of their pre-training: nobody here reads its answer."""
    if dict(body.named_children()).get("pooler") is not None:
        body.add_module("pooler", None)
    return body


def pruned(body: nn.Module, kept: Sequence[int] | None) -> nn.Module:
    """The encoder with those rows alone of its table of tokens, in this order; changed in place. None keeps all."""
    if kept is None:
        return body
    for module in body.modules():
        table = dict(module.named_children()).get("word_embeddings")
        if isinstance(table, nn.Embedding):
            smaller = nn.Embedding(len(kept), table.embedding_dim)
            with torch.no_grad():
                smaller.weight.copy_(table.weight[torch.tensor(kept)])
            module.add_module("word_embeddings", smaller)
            return body
    raise TeacherError(f"no table of tokens in a {type(body).__name__}", hint="leave vocabulary= out")


def blocks_of(body: nn.Module, path: str) -> tuple[str, nn.ModuleList]:
    """The encoder's stack of layers, and its module path. Raises TeacherError where there is none that is known."""
    parts: Mapping[str, nn.Module] = dict(body.named_modules())
    for name in BLOCKS:
        found = parts.get(name)
        if isinstance(found, nn.ModuleList):
            return name, found
    raise TeacherError(f"{path}: no stack of layers in a {type(body).__name__}", hint=f"known are {', '.join(ENCODERS)}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the library's progress bars and reports: what matters of them becomes an error of ours."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
