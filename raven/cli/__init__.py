"""The commands `ravenctl` and `raven`."""
