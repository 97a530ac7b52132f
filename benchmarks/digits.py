"""The digits recipe, and what its student costs beside its teacher exported the same way, in one interleaved measurement.

    python benchmarks/digits.py                              # the whole recipe first: some minutes
    python benchmarks/digits.py --out runs/digits            # a run that is there already is only measured
    python benchmarks/digits.py --set fit.epochs=4           # as in `attar run`

One image, one thread: each call asks another of 256 test rows, all arrays made beforehand. The teacher is its members' mean
probability, one graph through the same `export`. Targets: at least 10 × fewer parameters, p95 at least 5 × lower, a test split of at
least 2,000 rows; and the verdict, whatever it is.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from credit import ROWS, asked, finished
from torch import Tensor, nn

from attar.cost import Candidate, compare, machine
from attar.signal import Inputs
from attar.sources.onnx import onnx
from attar.sources.taught import Taught, TaughtNets, open_taught
from attar.task import Task, task_for
from attar.verbs.export import export

RECIPE = Path(__file__).parent.parent / "recipes" / "digits.yaml"


def main() -> None:
    options = asked("digits", __doc__, seconds=6.0)
    certificate, job, data = finished(RECIPE, options.out, options.settings)
    print(f"python {' '.join(sys.argv)} · {machine()}")
    print(f"rows: {', '.join(f'{n} {len(s):,}' for n, s in data.splits.items())}; target: test at least 2,000")
    task = task_for(data.schema)
    assert isinstance(job.teacher, Taught)
    teacher = open_taught(job.teacher, data.schema, task, options.out / "teacher.safetensors")
    assert isinstance(teacher, TaughtNets)
    many = data.test.batch(torch.arange(ROWS))
    with tempfile.TemporaryDirectory() as folder:
        shipped = export(Mean(teacher.members, task), data, task, at=Path(folder) / "teacher")
        graphs = {f"teacher as {n.removeprefix('student.')}": onnx(str(shipped.folder / n)) for n in shipped.files}
        graphs |= {path.name: onnx(str(path)) for path in sorted((options.out / "student").glob("*.onnx"))}
    candidates = {n: Candidate.of(s, many, many, size_bytes=s.size_bytes, parameters=s.parameters) for n, s in graphs.items()}
    candidates["teacher in PyTorch"] = Candidate.of(teacher, many, many)
    compared = compare(candidates, seconds=options.seconds, undisturbed=True)

    print(f"\n{'one thread':24}{'p50 µs':>9}{'p95 µs':>9}   {'p95, 95 %':18}{'256 rows ms':>12}{'parameters':>12}{'bytes':>12}")
    for name, cost in compared.costs.items():
        p50, p95, batch = cost.latency_ms.p50, cost.latency_ms.p95, cost.latency_many_ms.p50
        between = f"[{1000 * p95.low:.1f}, {1000 * p95.high:.1f}]"
        said = f"{cost.parameters:>12,}{cost.size_bytes:>12,}" if cost.parameters else ""
        print(f"{name:24}{1000 * p50.value:9.1f}{1000 * p95.value:9.1f}   {between:18}{batch.value:12.2f}{said}")
    whole, student = compared.costs["teacher as onnx"], compared.costs["student.onnx"]
    assert whole.parameters
    assert student.parameters
    assert whole.size_bytes
    assert student.size_bytes
    most, half = compared.ratio("teacher as onnx", "student.onnx"), compared.ratio("teacher as onnx", "student.onnx", share=0.5)
    fewer, smaller = whole.parameters / student.parameters, whole.size_bytes / student.size_bytes
    print(f"\nparameters {fewer:.1f} × fewer (target 10 ×), bytes {smaller:.1f} × fewer")
    print(f"p95 {most.value:.2f} × [{most.low:.2f}, {most.high:.2f}] (target 5 ×), p50 {half.value:.2f} ×")
    print(f"\n{certificate}\n\n{(options.out / 'recipe.yaml').read_text(encoding='utf-8')}")


class Mean(nn.Module):
    """The log of the members' mean probability, which is what the teacher answers."""

    def __init__(self, members: tuple[nn.Module, ...], task: Task) -> None:
        super().__init__()
        self.members, self.task = nn.ModuleList(members), task

    def forward(self, inputs: Inputs) -> Tensor:
        log_p = [torch.log_softmax(self.task.canonical(net(inputs)), -1) for net in self.members]
        return torch.logsumexp(torch.stack(log_p), 0) - torch.log(torch.tensor(float(len(log_p))))


if __name__ == "__main__":
    main()
