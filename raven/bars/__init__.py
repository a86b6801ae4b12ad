"""Time bars and tick imbalance bars: kernels and carried state. Pure: no I/O, no clock."""
