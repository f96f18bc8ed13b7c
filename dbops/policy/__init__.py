"""Row level security: declared, applied as a diff, attacked."""
