"""Why a Sandbox cannot do what it was given, where that is not the Expert's to read."""


class PackageError(Exception):
    """A package could not be installed; its text is one sentence that names it and what its registry answered."""


class SkillError(Exception):
    """A skill cannot be used; its text is one clear sentence that names the skill and says what to do."""


class NetworkOpenError(Exception):
    """Something is within reach that must not be; its text says what."""
