"""Taps under DistributedDataParallel: two processes learn what one would."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from attar.objective import Distiller, Term, kl, labels
from attar.objective.align import aligned
from attar.signal import Batch, Signal
from attar.task import Task

ROWS = 12


class Hint(Term):
    """The squared distance of what a layer of the student reads and of a tap of the teacher, through a projector."""

    student_taps, teacher_taps = frozenset({"2:in"}), frozenset({"inside"})

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        super().build(student, teacher, task)
        assert teacher is not None
        self.align = aligned("auto", student.taps["2:in"], teacher.taps["inside"], repr(self))

    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        assert teacher is not None
        one, other = self.align(student.taps["2:in"], teacher.taps["inside"])
        return (one - other).square().mean(-1)

    def __repr__(self) -> str:
        return "hint()"


def rows(index: slice) -> tuple[Batch, Signal]:
    g = torch.Generator().manual_seed(1)
    inputs, logits, inside = (torch.randn(ROWS, width, generator=g)[index] for width in (3, 2, 7))
    return Batch(inputs, labels=(torch.arange(ROWS) % 2)[index]), Signal(logits, {"inside": inside})


def built() -> Distiller:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    return Distiller(student, 0.5 * Hint() + 0.4 * kl() + 0.1 * labels()).build(*rows(slice(ROWS)))


def _one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    distiller = built()
    wrapped = DistributedDataParallel(distiller)
    wrapped(*rows(slice(rank, ROWS, 2))).total.backward()
    pulls = {name: p.grad for name, p in distiller.named_parameters()}
    torch.save(pulls, Path(folder) / f"pulls{rank}.pt")
    torch.distributed.destroy_process_group()
    os._exit(0)  # all is kept; torch's own threads have been seen to abort a process that was ending


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path),), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]  # public
    alone = built()
    alone(*rows(slice(ROWS))).total.backward()
    expected = {name: p.grad for name, p in alone.named_parameters()}
    assert any("align" in name for name in expected)
    for rank in range(2):
        pulls = torch.load(tmp_path / f"pulls{rank}.pt", weights_only=True)
        assert pulls.keys() == expected.keys()
        for name, pull in expected.items():
            assert pull is not None
            assert pull.abs().max() > 1e-4
            assert torch.allclose(pulls[name], pull, atol=1e-6), name
