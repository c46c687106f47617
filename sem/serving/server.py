"""A socket, a server on it in a thread of its own, and their end."""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading

from sem.extras import how_to_install
from sem.serving.app import Served, build_app
from sem.serving.scheduler import Scheduler

try:
    import uvicorn
except ImportError:
    raise ImportError(f"sem serve needs FastAPI and uvicorn: {how_to_install('serve')}") from None


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; connections wait until a :class:`Server` takes them.

    Args:
        host: a name or an address of this machine.
        port: 0 takes any that is free.

    Raises:
        ValueError: the port is in use or may not be had, or the host is none of this machine's.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except (socket.gaierror, UnicodeError) as error:  # the latter of names that cannot be any machine's
        reason = getattr(error, "strerror", None) or "no such name can be"
        raise ValueError(f"--host {host}: expected a name or an address of this machine ({reason})") from None
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "it is in use" if error.errno == errno.EADDRINUSE else "this user may not have it"
            raise ValueError(f"--port {port}: expected a free port of {host}, {why}") from None
        raise ValueError(f"--host {host}: expected an address of this machine ({error.strerror})") from None


def is_local(listener: socket.socket) -> bool:
    """Whether nothing but this machine can reach ``listener``."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def address_of(listener: socket.socket) -> str:
    """What to type into a browser's line of addresses."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server:
    """Serves until it is stopped, in a thread of its own, so that signals stay the caller's.

    Args:
        served: the model and what belongs to it.
        listener: as :func:`listening_socket` gives it; the server closes it.
    """

    def __init__(self, served: Served, listener: socket.socket) -> None:
        self.scheduler = Scheduler(served.limits.concurrent, served.limits.waiting)
        self.address = address_of(listener)
        app = build_app(served, self.scheduler, local_only=is_local(listener))
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="sem-serve-http", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> bool:
        """Whether it still serves, after at most ``timeout`` seconds."""
        self._thread.join(timeout)
        return self._thread.is_alive()

    def stop(self) -> None:
        """Take no more requests, end those that are being answered with an error, and return when both is done."""
        self._server.should_exit = True
        self.scheduler.close()
        self._thread.join(10.0)
