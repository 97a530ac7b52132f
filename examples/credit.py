"""The main job from Python: a boosted teacher into a small network, certified."""

import attar

data = attar.data.table("recipes/data/credit.csv.gz", label="default")
teacher = attar.taught(attar.lightgbm(trees=600), at="teacher.txt")
student = attar.students.mlp(width=64, depth=3)
goal = attar.blend(attar.kl(temperature=2), attar.labels(), weight=0.9)
result = attar.run(teacher, student, data, goal, out="runs/credit")
print(result.certificate)
