"""Answers -> metrics with intervals, beside baselines; the gate and the reports."""
