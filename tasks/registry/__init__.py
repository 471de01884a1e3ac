"""Everything that talks to MLflow: runs, registered versions, aliases and promotion."""
