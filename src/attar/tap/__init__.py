"""Taps: what happens inside a model, by module path or by a name that means the same everywhere.

    tap      = name ["#" call] | path [":in"] ["[" item "]"] ["#" call]
    path     a module, as `model.named_modules()` has it: "layers.2", "encoder.layer.0.output"; its output is read,
    :in      or its first argument instead,
    [item]   of an output that is a tuple or a mapping the item-th value, or the item-th argument, counted from 0;
    #call    of a module that runs several times for one answer the call-th run, counted from 0.

Names (L tokens or patches, D width, C channels, N blocks; -1 is the last block):

    hidden        (B, L, D)         the last hidden states, after the last normalisation; (B, D) of a model without tokens
    hidden.k      (B, L, D)         after block k = 1..N; hidden.0 is what the first block reads
    query.k key.k value.k (B, L, D) in the attention of block k = 1..N, heads side by side
    attention.k   (B, heads, L, L)  scores of block k = 1..N before the softmax, q kᵀ/√d of each head; padded tokens are not hidden
    stageN        (B, C, H, W)      of a convolutional net the last map at stride 4, 8, 16, 32 (stage1 … stage4; attar's `cnn`: its N-th
                                    map); of a vision transformer the tokens (B, L, D) after the N-th quarter of its blocks
    embedding     (B, D)            what the last linear layer reads; of an encoder without one, the mean of `hidden` over real tokens

A name wins over a module of the same path. `taps_of` lists the names a model has, and the paths behind them.
"""

from __future__ import annotations

from attar.tap.listing import listing
from attar.tap.names import Named, resolve, taps_of
from attar.tap.observe import Masked, Tapped, observe

__all__ = ["Masked", "Named", "Tapped", "listing", "observe", "resolve", "taps_of"]
