"""What came of a run, as tables, figures and a page."""
