"""Raven: every trade, the bars built from them, and both in your databases."""
