"""What `natix init` sees of a data set and of a machine, what it says about them, and the config that it drafts.

Beside it, what `natix doctor --cluster` sees of a cluster, and whether that holds what the pods of a run ask for.

`natix init` reads a set as ingest does, through `data.sources`, and divides it as split does, so that it cannot promise
another reading. What only decoding tells, equal and nearly equal pictures, it leaves out and says so.
"""
