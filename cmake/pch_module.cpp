// Nothing here: the target only carries the precompiled header.
