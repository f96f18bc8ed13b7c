"""Rows for other programs, and from them: JSON lines or SQL out, JSON lines in."""
