def pictures(kept, title):
    yield from ()
