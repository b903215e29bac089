"""Architecture search: spaces, networks and programs, from search to a trained network."""
