"""Time bars and bars that trades close: kernels and carried state. Pure: no I/O, no clock."""
