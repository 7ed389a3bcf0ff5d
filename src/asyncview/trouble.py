"""What a storage raises: its own trouble, which passes, or that of a single record.

A record that is lost, cut off or of a class that is gone raises whatever it likes, each
time; it must cost the job that it is of, and no other.
"""

from persistent import Persistent
from transaction.interfaces import TransientError
from ZODB.POSException import StorageError

#: What a storage raises that is in trouble: it may be back in a moment.
TROUBLE = (OSError, StorageError, TransientError)


def loads(record: Persistent) -> bool:
    """Whether anything can be made of a record; raises what is the storage's."""
    try:
        record._p_activate()
    except TROUBLE:
        raise
    except Exception:
        return False
    return True
