"""Plumbline's pure library: sampling, scoring, pairs, DPO, evaluation, gates; it knows no scheduler and no tracker."""
