"""Settings to a finished run folder: checks, builders, trainer, checkpoints. What reads it is prediction."""
