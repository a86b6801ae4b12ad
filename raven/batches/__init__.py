"""Arrow schemas, IPC codec, micro-batch accumulator and sequence checks. Pure: no I/O, no clock."""
