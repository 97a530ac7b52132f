"""Stored answers: safetensors shards and a JSONL manifest while filling, one memory-mapped file per tensor when complete.

    answers/
      manifest.jsonl                  header (identity, what is compacted, checksums), then one line per shard; each line carries a check
      manifest.1.jsonl …              the shard lines of rank 1 and so on, where several processes fill
      shard.0.0.000000.safetensors    generation, rank, number: output, ids, views, taps/…, masks/… of some rows
      output.1.bin ids.1.bin …        once compacted: raw rows, little-endian; their form stands in the header

A shard counts once its line stands in the manifest; the line is written after the file is synced and renamed. Compacting writes the
mapped files, then replaces the manifest (the switch), then removes the shards: a kill at any byte leaves either shards to go on from,
or the compacted answers. Rows that come later are appended behind the compacted ones, and the header says how many rows count.
"""

from attar.store.answers import BLOCK, Identity, Precision, Size, estimate
from attar.store.reader import Store, complete_rows, no_answer
from attar.store.writer import Writer

__all__ = ["BLOCK", "Identity", "Precision", "Size", "Store", "Writer", "complete_rows", "estimate", "no_answer"]
