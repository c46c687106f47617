"""Networks that turn a pattern into a patch of the object, trained by the physics alone."""
