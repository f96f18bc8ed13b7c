"""Duplicates in any table, without the memory schema: the same search, guard, ledger and undo."""
