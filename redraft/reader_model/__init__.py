"""The simulated reader: minutes by a documented effort model, annotations with a reader's own border error."""
