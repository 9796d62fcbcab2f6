"""The errors a user can meet. Each message says what was expected, what was found and what to do."""


class FFNetDeployError(Exception):
    """Base of every error that the commands report in plain words, without a traceback."""


class OptionError(FFNetDeployError, ValueError):
    """An option, or a combination of options, that cannot be carried out."""


class ConfigError(FFNetDeployError, ValueError):
    """A config that cannot be found, read or built."""


class CheckpointError(FFNetDeployError, ValueError):
    """A checkpoint that is missing, damaged, unsafe or made for another network."""


class DataError(FFNetDeployError, ValueError):
    """Images, labels or folders that cannot be used as they are."""


class ArtifactError(FFNetDeployError, ValueError):
    """An exported graph, engine or manifest that is missing, damaged or does not fit its use."""


class VerificationError(FFNetDeployError):
    """A converted network whose outputs differ from the original's by more than the tolerance."""


class MissingPackageError(FFNetDeployError, ImportError):
    """An optional package that is not installed; the message names the extra that brings it."""


class StorageError(FFNetDeployError, OSError):
    """A folder that cannot be written, or a disk without room."""
