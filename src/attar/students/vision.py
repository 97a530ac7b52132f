"""Backbones of timm and torchvision as students, by their names there."""

from __future__ import annotations

from attar.notation import InPath
from attar.pretrained import Backbone

__all__ = ["timm", "torchvision"]


def timm(name: str, *, weights: InPath | None = None, size: int | list[int] | None = None, freeze: bool = False) -> Backbone:
    """A model of timm with a head for the data's outcomes: (B, 1 or 3, height, width) uint8 → (B, C) logits, of a regression (B, 1).

    name: as `timm.list_models()` has it, "mobilenetv3_small_050"; with a tag, "vit_tiny_patch16_224.augreg_in21k", for that tag's reading.
    weights: a local .safetensors or .pth file, "package:NAME/…" inside an installed package, or a run's student.safetensors; nothing is
        downloaded. Left out, the seed's weights. The file's head is kept where it has the data's number of outcomes, else made new.
    size: [height, width], or one number for both, that images are scaled to in the model (and in its exported graph). Left out, they go in
        as the data have them: 28 × 28 pixels then come to one at the end of most nets. A model of one size alone, as many ViTs, is built
        for the data's size where it has no weights, and refuses another where it has.
    freeze: only the head learns; embeddings of rows that were seen are kept (up to 512 MB), so that an image passes through once.

    Pixels are scaled and normalised as the model's own configuration says (mean, std, interpolation), inside the model: teacher and
    student each read raw pixels in their own way. Grey is read as colour with three equal channels. Export, taps and objectives are
    as for `cnn`, which is smaller and faster where images are small; choose a backbone where its weights bring something along.
    Raises StudentError for a name that is not known, weights that do not fit, naming them, and data that are no images.

    >>> timm("mobilenetv3_small_050", size=96)
    timm("mobilenetv3_small_050", size=[96, 96])
    """
    return Backbone.named("timm", name, weights, size, freeze)


def torchvision(name: str, *, weights: InPath | None = None, size: int | list[int] | None = None, freeze: bool = False) -> Backbone:
    """A classifier of torchvision with a head for the data's outcomes: (B, 1 or 3, height, width) uint8 → (B, C) logits.

    name: as `torchvision.models.list_models()` has it, "resnet18". Pixels are normalised as torchvision says of the first weights it
    names for the model, which are those of the paper; no weights are fetched. All else is as in `timm`.

    >>> torchvision("resnet18")
    torchvision("resnet18")
    """
    return Backbone.named("torchvision", name, weights, size, freeze)
