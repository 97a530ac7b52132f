"""Certificate: what was found about a student, as named figures with intervals and verdicts; JSON, and text for a terminal."""

from attar.certificate.certificate import SCHEMA_VERSION, Certificate
from attar.certificate.compare import Comparison, compare
from attar.certificate.evidence import Evidence, Powered, Sets
from attar.certificate.figures import Answer, Figure, Verdict, digits, interval, metric_name, signed, visible
from attar.certificate.foreign import Foreign
from attar.certificate.guarding import Guarding, Kept, Passing
from attar.certificate.harm import Harm
from attar.certificate.quality import Quality, Shifted
from attar.certificate.require import MARGIN, MARGIN_SHARE, Require, Requirement, require
from attar.certificate.terminal import STYLES

__all__ = [
    "MARGIN",
    "MARGIN_SHARE",
    "SCHEMA_VERSION",
    "STYLES",
    "Answer",
    "Certificate",
    "Comparison",
    "Evidence",
    "Figure",
    "Foreign",
    "Guarding",
    "Harm",
    "Kept",
    "Passing",
    "Powered",
    "Quality",
    "Require",
    "Requirement",
    "Sets",
    "Shifted",
    "Verdict",
    "compare",
    "digits",
    "interval",
    "metric_name",
    "require",
    "signed",
    "visible",
]
