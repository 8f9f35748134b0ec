"""What is known of the processor that batches go through."""

# Floats that fit into the cache of a core, with the bytes or floats that they are made of.
IN_CACHE = 2**18
