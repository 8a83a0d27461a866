"""OpenTelemetry: what spans say (`spans.py`), and how they leave (`export.py`). Imported by `--traces` alone."""
