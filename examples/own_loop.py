"""A training loop of your own: any teacher, any student, any optimiser; attar brings the objective."""

import torch

import attar

data = attar.data.table("recipes/data/credit.csv.gz", label="default").read()
task = attar.classification(metric="auroc").bind(data.schema)


class Net(torch.nn.Module):
    """A plain module: forward takes `Batch.inputs` and returns logits."""

    def __init__(self, numbers: int, width: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.BatchNorm1d(numbers), torch.nn.Linear(numbers, width), torch.nn.ReLU(), torch.nn.Linear(width, 2)
        )

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.layers(inputs["numbers"].float().nan_to_num())


torch.manual_seed(0)
teacher = attar.module(Net(len(data.schema.numbers), width=256))  # yours would be trained
student = Net(len(data.schema.numbers), width=16)
goal = 0.9 * attar.kl(temperature=2) + 0.1 * attar.labels()

batch = data.train.batch(torch.arange(256))
distiller = attar.Distiller(student, goal, task).build(batch, teacher(batch, goal.teacher_taps))
optimizer = torch.optim.AdamW(distiller.parameters(), lr=1e-3)
for step in range(30):
    batch = data.train.batch(torch.randint(len(data.train), (256,)))
    loss = distiller(batch, teacher(batch, goal.teacher_taps), progress=step / 30)
    optimizer.zero_grad()
    loss.total.backward()
    optimizer.step()
    if step % 10 == 9:
        print(step + 1, {name: round(float(value), 4) for name, value in loss.parts.items()})
