"""Plumbline's pure library: sampling, scoring, pairs, DPO, evaluation and gates; it knows no scheduler and no tracker."""
