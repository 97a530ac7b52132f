"""Certificate: what was found about a student, as named figures with intervals and verdicts; JSON, and text for a terminal."""

from attar.certificate.certificate import SCHEMA_VERSION, Certificate
from attar.certificate.figures import Answer, Figure, Verdict, digits, metric_name, signed
from attar.certificate.harm import Harm
from attar.certificate.quality import Quality, Shifted
from attar.certificate.require import MARGIN, MARGIN_SHARE, Require, Requirement, require

__all__ = [
    "MARGIN",
    "MARGIN_SHARE",
    "SCHEMA_VERSION",
    "Answer",
    "Certificate",
    "Figure",
    "Harm",
    "Quality",
    "Require",
    "Requirement",
    "Shifted",
    "Verdict",
    "digits",
    "metric_name",
    "require",
    "signed",
]
