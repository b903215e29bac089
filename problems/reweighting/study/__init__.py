"""Does it help? All programs and the ablations of LFM on small sets, tuned alike and compared."""
