"""A small Hugging Face folder, made in milliseconds: an encoder or a classifier of words that are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["small_folder"]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def small_folder(
    at: Path,
    words: Sequence[str],
    *,
    config: str = "bert",
    layers: int = 2,
    width: int = 16,
    heads: int = 2,
    labels: Sequence[str] = (),
    pooling: str = "",
    normalised: bool = False,
    seed: int = 0,
) -> Path:
    """Write a folder as `save_pretrained` does: `words` with [PAD], [UNK], [CLS] and [SEP] before them, random weights.

    config: "bert", "distilbert", "electra", "roberta". labels: names of the outcomes of a classifier; none of an encoder.
    pooling: "mean" or "cls", with a modules.json that says so, as sentence encoders have one; "" writes none.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    vocabulary = [*SPECIAL, *words]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL))
    frame = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=frame)
    shape: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 160,
        "pad_token_id": 0,
        "initializer_range": 0.5,  # larger than usual, so that untrained answers differ from text to text
    }
    shape |= {"hidden_dim": 2 * width} if config == "distilbert" else {"intermediate_size": 2 * width}
    shape |= {"embedding_size": width} if config == "electra" else {}
    if labels:
        shape |= {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        kind = AutoModelForSequenceClassification if labels else AutoModel
        kind.from_config(AutoConfig.for_model(config, **shape)).save_pretrained(at)
    tokenizer.save(str(at / "tokenizer.json"))
    if pooling:
        names = ["Transformer", "Pooling", *(["Normalize"] if normalised else [])]
        paths = ["", "1_Pooling", "2_Normalize"]
        modules = [{"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{n}"} for i, n in enumerate(names)]
        (at / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        (at / "1_Pooling").mkdir(exist_ok=True)
        said = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
        (at / "1_Pooling" / "config.json").write_text(json.dumps(said), encoding="utf-8")
    return at
