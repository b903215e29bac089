"""Programs of architecture search, declared on the engine."""
