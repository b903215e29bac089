"""The audit: the same problems with known answers through this library and through its peers."""
