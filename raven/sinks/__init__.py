"""Sinks: where trades and bars are kept. A sink is config, encode (pure), write and position; see `store`."""
