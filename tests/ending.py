"""Ends a waitress that serves in a thread of the tests."""

from conftest import PATIENCE


def end(server, thread):
    # With the lock, which the server's thread takes before it does what it was told:
    # an answer that is just being sent pulls the trigger as well, and ours would be
    # pulled when it is closed.
    with server.trigger.lock:
        # In its own thread: sockets must not go while it looks at them.
        server.trigger.thunks.append(
            lambda: server.asyncore.close_all(server._map, ignore_all=True)
        )
        server.trigger._physical_pull()
    thread.join(PATIENCE)
    server.task_dispatcher.shutdown()
