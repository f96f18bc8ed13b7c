"""The doctor: forty-two checks of a database as a whole, each one file in `checks/`."""

from __future__ import annotations

from dbops.hygiene.doctor.mend import Mended, mend, mendable
from dbops.hygiene.doctor.model import SEVERITIES, Check, Finding, NotChecked, Report, checks
from dbops.hygiene.doctor.run import Problem, examine

__all__ = [
    "SEVERITIES",
    "Check",
    "Finding",
    "Mended",
    "NotChecked",
    "Problem",
    "Report",
    "checks",
    "examine",
    "mend",
    "mendable",
]
