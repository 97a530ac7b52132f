"""Who learns: builders of small models, called with (schema, seed)."""

from attar.students.mlp import mlp  # isort: skip  (the word hides the module of its name: whatever is imported first)
from attar.students.cnn import cnn  # isort: skip

__all__ = ["cnn", "mlp"]
