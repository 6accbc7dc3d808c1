"""The parts of make report: what it rests on, its numbers, tables, charts and pictures, and the page."""
