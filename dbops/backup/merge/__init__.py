"""Rows of a backup beside the live ones: the difference, a merge in one transaction, and its undoing."""

from dbops.backup.merge.apply import Prepared, diff, merge, plan_merge
from dbops.backup.merge.model import Difference, Merged, MergedTable, Mode, Sample, Selection, TableDifference
from dbops.backup.merge.plan import Plan
from dbops.backup.merge.undo import undo

__all__ = [
    "Difference",
    "Merged",
    "MergedTable",
    "Mode",
    "Plan",
    "Prepared",
    "Sample",
    "Selection",
    "TableDifference",
    "diff",
    "merge",
    "plan_merge",
    "undo",
]
