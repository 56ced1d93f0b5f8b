"""The report: one page that shows what was measured, pruned, lost and gained."""
