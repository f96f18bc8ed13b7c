"""Backups: taken, kept, verified, restored, drilled."""
