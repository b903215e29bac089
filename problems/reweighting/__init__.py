"""Data reweighting: programs that weigh training examples, and what they are compared with."""
