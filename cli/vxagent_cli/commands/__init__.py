"""The commands, a module for each kind of thing they are about. `app` puts them together."""
