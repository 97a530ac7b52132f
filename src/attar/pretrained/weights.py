"""Weights of a vision model in a local file, by the names that its library gives them; nothing in the file is executed."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from attar.errors import StudentError, TrustError
from attar.notation import located

__all__ = ["read_weights", "renamed"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
WRAPPED = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state")  # where scripts put them; timm too takes EMA first


def read_weights(path: str) -> dict[str, Tensor]:
    """The tensors by name in a safetensors file, or one that torch.save wrote; of a folder, in the one such file that it holds.

    path: a file or folder, or "package:NAME/…" inside an installed package. torch reads with weights_only=True.
    Raises StudentError for a file that is not there or holds no weights, TrustError for one that could execute code.
    """
    file = _file(Path(located(path)), path)
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise StudentError(f"{path} is no safetensors file: {error}", hint="is it whole?") from error
    try:
        with file.open("rb") as opened:
            written = opened.read(4).startswith((b"PK\x03\x04", b"\x80\x02"))  # a zip, or a pickle as torch wrote it before 1.6
    except OSError as error:
        raise StudentError(f"{path} cannot be read: {error.strerror}", hint="may you read it?") from error
    if not written:
        raise StudentError(f"{path} is no file that torch.save wrote", hint="is it whole?")
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TrustError(
            f"{path} holds more than weights, and could execute code", hint="save its state_dict alone, as safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:  # whatever a damaged pickle runs into
        raise StudentError(f"{path} is damaged: {error or type(error).__name__}", hint="is it whole?") from error
    for name in WRAPPED:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = held[name]
            break
    if not isinstance(held, Mapping) or not held or not all(isinstance(v, Tensor) for v in held.values()):
        raise StudentError(f"{path} holds no weights by name", hint="a state_dict: torch.save(model.state_dict(), path)")
    return dict(held)


def _file(at: Path, path: str) -> Path:
    if at.is_dir():
        files = sorted(p for p in at.iterdir() if p.suffix in SUFFIXES)
        if len(files) != 1:
            found = f": {', '.join(f.name for f in files[:5])}" if files else ""
            raise StudentError(f"{path} holds {len(files)} files of weights{found}", hint="name one")
        return files[0]
    if not at.is_file():
        raise StudentError(f"there is no file {path!r}", hint="weights are read from a local file, never downloaded")
    return at


def renamed(state: Mapping[str, Any], own: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    """Weights under the names that the library's model itself has, whoever wrote them.

    own: the model's. head: path of its classifier. Known: the library's own names, the same below "module." (written by a parallel
    model), attar's own students and teachers ("net.…" and "head.…"), and EfficientNets of `efficientnet_pytorch` and its kin.
    """
    found = {name.removeprefix("module."): value for name, value in state.items()}
    if "head.weight" in found and any(name.startswith("net.") for name in found):
        found = _attar(found, head)
    elif "_conv_stem.weight" in found:
        found = _efficientnet(found, own)
    return found


def _attar(state: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    """A student's or teacher's weights; of a regression the unit of the label becomes part of the head."""
    found = {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
    mean, std = state.get("mean", torch.tensor(0.0)), state.get("std", torch.tensor(1.0))
    found[f"{head}.weight"], found[f"{head}.bias"] = state["head.weight"] * std, state["head.bias"] * std + mean
    return found


ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
EXPANDING = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand", "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
PLAIN = {**EXPANDING, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # of a block that does not widen first


def _efficientnet(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of `efficientnet_pytorch`, `_blocks.5._bn0.weight`, as timm has them, `blocks.3.0.bn1.weight`, counting blocks by stage."""
    stages = sorted({(int(m[1]), int(m[2])) for name in own if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", name))})
    found = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "_blocks" and len(parts) == 4 and int(parts[1]) < len(stages):
            words = EXPANDING if f"_blocks.{parts[1]}._expand_conv.weight" in state else PLAIN
            stage, place = stages[int(parts[1])]
            name = f"blocks.{stage}.{place}.{words.get(parts[2], parts[2])}.{parts[3]}"
        elif parts[0] in ENDS:
            name = f"{ENDS[parts[0]]}.{parts[1]}"
        found[name] = value
    return found
