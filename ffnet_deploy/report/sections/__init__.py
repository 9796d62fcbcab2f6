"""The parts of a report: each takes the data and gives a section, or None where there is nothing to show."""
