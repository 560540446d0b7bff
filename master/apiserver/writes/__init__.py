"""The one path of every write: decode, prepare, admit, default, validate, track, and one transaction."""
