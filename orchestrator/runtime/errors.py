"""Why a Sandbox cannot do its work, for errors that the Expert does not see."""


class InstallError(Exception):
    """A package could not be installed; the text is one sentence with its name and the registry's answer."""


class SkillError(Exception):
    """A skill cannot be used; the text is one sentence that names the skill and a remedy."""


class NetworkOpenError(Exception):
    """An address that must be blocked can be reached; the text names it."""
