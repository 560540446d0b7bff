"""The watch cache of an API server: the objects of every resource, fed by one watch on the store."""
