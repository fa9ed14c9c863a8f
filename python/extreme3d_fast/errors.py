"""The package's own exceptions; each is a built-in one too, so that plain handlers keep working."""


class Extreme3DError(Exception):
    """Anything that this package refuses to do, with the reason in its message."""


class NoFaceFound(Extreme3DError, ValueError):
    """The photo holds no face that could be found."""


class InvalidImage(Extreme3DError, ValueError):
    """The image is not one that can be worked on: wrong shape, type, or unreadable."""


class InvalidModelFile(Extreme3DError, ValueError):
    """A head-model, network or reference file is damaged, or is not what it should be."""


class DeviceUnavailable(Extreme3DError, RuntimeError):
    """No usable GPU, or a package that is needed for it is not installed."""


class UnsafeCache(Extreme3DError, PermissionError):
    """A cached file or its folder could have been written by somebody else, so it is not read."""
