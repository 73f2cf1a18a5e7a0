"""One directory: report.md, figures, results.json."""

from .write import write_answers, write_report

__all__ = ["write_answers", "write_report"]
