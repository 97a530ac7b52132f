"""Where the text encoders of Hugging Face have what the names mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from torch import nn

from attar.tap.grammar import Read
from attar.tap.spots import Names, Spot, mean_of, one, part, scores

__all__ = ["encoder_names"]


@dataclass(frozen=True)
class Family:
    """Paths of one kind of encoder.

    blocks: of the list of blocks. norm: after the last block; "" where it ends with that.
    projections: of queries, keys and values within a block; one path where one layer makes all three.
    heads: their number, as an attribute of a block. score: why q kᵀ/√d is not this model's attention; "" where it is.
    """

    blocks: str
    projections: tuple[str, ...]
    heads: str = ""
    norm: str = ""
    score: str = ""


def _separate(at: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{at}.{name}" for name in names)


BERT = Family("encoder.layer", _separate("attention.self", "query", "key", "value"), "attention.self.num_attention_heads")
RELATIVE = "it adds what depends on the distance of two tokens to their score"
ROTARY = "it turns queries and keys by their position before they meet"

FAMILIES = {
    **dict.fromkeys(
        ("BertModel", "RobertaModel", "XLMRobertaModel", "CamembertModel", "ElectraModel", "MobileBertModel", "ErnieModel"),
        BERT,
    ),
    "DistilBertModel": Family("transformer.layer", _separate("attention", "q_lin", "k_lin", "v_lin"), "attention.n_heads"),
    "MPNetModel": Family("encoder.layer", _separate("attention.attn", "q", "k", "v"), score=RELATIVE),
    "DebertaV2Model": Family("encoder.layer", _separate("attention.self", "query_proj", "key_proj", "value_proj"), score=RELATIVE),
    "ModernBertModel": Family("layers", ("attn.Wqkv",), norm="final_norm", score=ROTARY),
    "NomicBertModel": Family("layers", _separate("self_attn", "q_proj", "k_proj", "v_proj"), score=ROTARY),
}
ALBERT = Family("", _separate("attention", "query", "key", "value"), "attention.num_attention_heads")


def encoder_names(model: nn.Module) -> Names | None:
    """The names of an encoder, or of the model that has one and a linear layer over it; None of anything else."""
    kind = type(model).__name__
    if not type(model).__module__.startswith("transformers."):
        return None
    if kind == "AlbertModel":
        return _albert(model)
    if kind in FAMILIES:
        return _encoder(model, FAMILIES[kind])
    return _head(model)


def _encoder(model: nn.Module, family: Family) -> Names | None:
    blocks = model.get_submodule(family.blocks)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        return None
    places = [(f"{family.blocks}.{i}", None) for i in range(len(blocks))]
    spots = _blocks(family, places, list(blocks))
    spots["hidden"] = one(family.norm) if family.norm else spots[f"hidden.{len(places)}"]
    spots["embedding"] = Spot(spots["hidden"].reads, mean_of)
    refused = {"attention": f"q kᵀ/√d is not the attention of {type(model).__name__}: {family.score}"} if family.score else {}
    return Names(spots, len(places), refused, reader="")


def _albert(model: nn.Module) -> Names | None:
    """One block is run again and again: which run is which layer."""
    count, groups = (int(attrgetter(f"config.{name}")(model)) for name in ("num_hidden_layers", "num_hidden_groups"))
    if int(attrgetter("config.inner_group_num")(model)) != 1:
        return None
    group_of = [int(i / (count / groups)) for i in range(count)]
    paths = [f"encoder.albert_layer_groups.{g}.albert_layers.0" for g in group_of]
    places = [(path, group_of[:i].count(group_of[i])) for i, path in enumerate(paths)]
    spots = _blocks(ALBERT, places, [model.get_submodule(path) for path in paths])
    spots["hidden"] = spots[f"hidden.{count}"]
    spots["embedding"] = Spot(spots["hidden"].reads, mean_of)
    return Names(spots, count, reader="")


def _blocks(family: Family, places: Sequence[tuple[str, int | None]], blocks: list[nn.Module]) -> dict[str, Spot]:
    """hidden.k, query.k, key.k, value.k and attention.k of blocks at (path, run)."""
    spots = {"hidden.0": one(places[0][0], into=True, call=places[0][1])}
    for k, ((path, call), block) in enumerate(zip(places, blocks, strict=True), 1):
        spots[f"hidden.{k}"] = one(path, call=call)
        reads = [Read(f"{path}.{projection}", call=call) for projection in family.projections]
        for i, name in enumerate(("query", "key", "value")):
            spots[f"{name}.{k}"] = Spot((reads[i],)) if len(reads) == 3 else Spot((reads[0],), part(i, of=3))
        if not family.score:
            spots[f"attention.{k}"] = Spot((reads[0], reads[1]), scores(int(attrgetter(family.heads)(block))))
    return spots


def _head(model: nn.Module) -> Names | None:
    """A classifier over an encoder: what its last linear layer reads."""
    head = dict(model.named_children()).get("classifier")
    if isinstance(head, nn.Linear):
        return Names({"embedding": one("classifier", into=True)})
    if head is not None and isinstance(dict(head.named_children()).get("out_proj"), nn.Linear):
        return Names({"embedding": one("classifier.out_proj", into=True)})
    return None
