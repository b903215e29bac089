"""Reference problem libraries written on the engine `mlo`, and the data sets they use."""
