// Nothing here: the targets made from it only carry their precompiled headers.
