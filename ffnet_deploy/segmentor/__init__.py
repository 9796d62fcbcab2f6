"""From a config and a checkpoint, by name or file, to a segmentor with its weights."""
