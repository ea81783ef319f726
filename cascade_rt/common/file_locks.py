"""Locks on open files, which end with the process that holds them."""


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed, without waiting.

    Args:
        descriptor: The file.
        shared: Let others share the lock, so that several processes can look at once whether somebody holds it alone.

    Returns:
        False if there are no locks here: on Windows, and on some network file systems.

    Raises:
        BlockingIOError: Another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
