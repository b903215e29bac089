"""Measurements of this repository; the wheel does not hold them."""
