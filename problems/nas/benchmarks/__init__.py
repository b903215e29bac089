"""Measurements of architecture search."""
