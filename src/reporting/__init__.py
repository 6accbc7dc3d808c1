"""The parts of make report: its evidence, its numbers, tables, charts and pictures, and the page."""
