"""One script for each library, run by that library's own interpreter; nothing here needs mlo."""
