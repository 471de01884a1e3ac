"""The columns of a pair that validation reads: all but the sampler's log-probs and the fault, which may be missing."""

import pyarrow as pa

from alignment.rows import PAIRS

TEXT = tuple(field.name for field in PAIRS.schema if field.type == pa.string() and field.name != "fault")
REQUIRED = tuple(name for name in PAIRS.schema.names if "logprob" not in name and name != "fault")
SCORES = ("chosen_score", "rejected_score", "gap")
"""Those that are null where nobody scored the pair; the gap may be there alone, as a margin that was given."""
