"""A stage store that several machines share: objects in a bucket, leases instead of locks, and a local cache."""
