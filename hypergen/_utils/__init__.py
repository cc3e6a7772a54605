"""Shared helpers: errors, files, extras, progress bars and seeds. They import no layer."""
