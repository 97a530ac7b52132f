"""Corruptions: rows made worse on purpose, by kind and severity, so that one sees who suffers more."""

from attar.data.corrupted.spec import KINDS, SEVERITIES, Corruptions, Corruptor, corruptions

__all__ = ["KINDS", "SEVERITIES", "Corruptions", "Corruptor", "corruptions"]
