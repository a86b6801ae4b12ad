"""Where trades come from: exchanges, recorded files, the simulated exchange."""
