"""What is wanted against what runs; the start plan; the handler of Control."""
