"""Certificate: what was found about a student, as named figures with intervals and verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.certificate.corrupted import Corrupted
from attar.certificate.evidence import Evidence
from attar.certificate.figures import Figure, Verdict
from attar.certificate.foreign import Foreign
from attar.certificate.guarding import Guarding
from attar.certificate.harm import Harm
from attar.certificate.plain import plain, whole
from attar.certificate.quality import Quality, Shifted
from attar.certificate.require import Requirement
from attar.certificate.terminal import styled
from attar.errors import EvidenceError
from attar.files import write_json

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["SCHEMA_VERSION", "Certificate"]

SCHEMA_VERSION = 3  # of certificate.json; raised whenever the meaning of a field changes, or a field comes or goes


@dataclass(frozen=True, repr=False)
class Certificate:
    """What was found about the student that ships. `str` is the text for a terminal, `write` the JSON.

    identity: what was judged: fingerprints, digests, versions, machine, rows, look (how often this test split has been opened).
    claim: what was fixed before the test split was opened: metric, margin, decision rule.
    non_inferior: is the file that ships no worse than the teacher? helped: did the procedure beat every control? against: each one.
    quality: by metric, the primary one first. fidelity: by name. calibration, cost: by who, then by name.
    requirements: what was asked for; empty where nothing was. limits: what was not tested. pictures: points for the page's drawings.
    shift: rows from elsewhere, by name. corrupted: test rows under corruptions, where they were asked.
    foreign: rows that are not of the task, by name. evidence: what unlabelled and calibration rows show, of a classification.
    harm: by class and by group; None where neither was compared. guard: of the file that ships; None where it has none.
    """

    identity: Mapping[str, Any]
    claim: Mapping[str, Any]
    non_inferior: Verdict
    helped: Verdict
    against: Mapping[str, Verdict]
    quality: Mapping[str, Quality]
    fidelity: Mapping[str, Figure]
    calibration: Mapping[str, Mapping[str, Figure]]
    cost: Mapping[str, Mapping[str, Figure]]
    requirements: tuple[Requirement, ...]
    limits: tuple[str, ...]
    pictures: Mapping[str, Any]
    shift: Mapping[str, Shifted] = field(default_factory=dict)
    corrupted: Corrupted | None = None
    foreign: Mapping[str, Foreign] = field(default_factory=dict)
    evidence: Evidence | None = None
    guard: Guarding | None = None
    harm: Harm | None = None

    def __repr__(self) -> str:
        return f"<Certificate: non-inferior {self.non_inferior.answer}, helped {self.helped.answer}>"

    @property
    def deciding(self) -> str | None:
        """The control that decides `helped`: of those with its answer, the least favourable; None where none was asked."""
        found = {name: v for name, v in self.against.items() if v.answer == self.helped.answer and v.difference is not None}
        return min(found, key=lambda name: found[name].lowest) if found else None

    def __str__(self) -> str:
        return "\n".join(self.lines())

    @property
    def exit_code(self) -> int:
        """3 where something was required and is not met, or the evidence for it does not suffice; 0 otherwise."""
        return 3 if any(r.answer != "met" for r in self.requirements) else 0

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dictionaries, lists, texts and numbers, with `schema_version`."""
        return {"schema_version": SCHEMA_VERSION, **plain(self)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Certificate:
        """The certificate that `to_dict` wrote. Raises EvidenceError for another schema version or one that is not whole."""
        version = value.get("schema_version")
        if version != SCHEMA_VERSION:
            raise EvidenceError(
                f"a certificate of schema version {version!r}; this attar reads version {SCHEMA_VERSION}",
                hint="evaluate again, or read it with the attar that wrote it",
            )
        try:
            found = whole(cls, value)
            for part in (found.identity[key] for key in ("student", "teacher")):
                _ = part["fingerprint"]
            _ = found.identity["data"], found.identity["task"], found.identity["rows"]["labelled"], found.claim["metric"]
            return found
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EvidenceError(f"this certificate is not whole: {error}", hint="evaluate again") from error

    def write(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def read(cls, path: str | Path) -> Certificate:
        """Read what `write` wrote. Raises EvidenceError where it is missing, unreadable, damaged or of another schema version."""
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise EvidenceError(f"no certificate at {path}", hint="attar evaluate writes one") from error
        except NotADirectoryError as error:
            what = f"{Path(path).parent} is a file, and a certificate lies in the folder of a run"
            raise EvidenceError(what, hint="name the folder, such as runs/credit") from error
        except IsADirectoryError as error:
            raise EvidenceError(f"{path} is a folder, not a certificate", hint="name the folder that holds it, as a run left it") from error
        except PermissionError as error:
            raise EvidenceError(f"{path} may not be read: {error.strerror}", hint="ask its owner, or run as who may") from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise EvidenceError(f"{path} does not read: {error}", hint="evaluate again") from error
        if not isinstance(value, dict):
            raise EvidenceError(f"{path} holds a {type(value).__name__}, not a certificate", hint="evaluate again")
        try:
            return cls.from_dict(value)
        except EvidenceError as error:
            raise EvidenceError(f"{path}: {error.message}", hint=error.hint) from error

    def lines(self, width: int = 80) -> list[str]:
        """The certificate as text: verdicts first, then tables, then limits; readable without colour."""
        return [text for text, _ in styled(self, width)]

    def rich(self, width: int = 80) -> RenderableType:
        """The same with colour, for a rich console."""
        from rich.text import Text

        page = Text()
        for text, style in styled(self, width):
            page.append(text + "\n", style=style)
        return page
