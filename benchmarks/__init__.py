"""Measurements that are too long, or too particular to a machine, for the test suite."""
