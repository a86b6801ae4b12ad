"""What `raven doctor` looks at: a check finds facts, and a pure function beside it judges them."""
