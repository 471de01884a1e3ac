"""The names of the aliases that a registered model's versions carry."""

CHAMPION = "champion"  # the version in use
PREVIOUS = "previous"  # the champion before it
CHALLENGER = "challenger"  # the newest version that passed its gates
ANCHOR = "anchor"  # the base of the first champion, to which drift is measured
