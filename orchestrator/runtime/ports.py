"""TCP ports for what we start later, which nothing else takes meanwhile."""

import secrets
import socket

# Between what Ray's workers take (from 10002) and what Serve's replicas do (from 30000), and below
# what Linux gives to whoever asks for any port (from 32768): a port of those, free when looked at,
# is often gone when an engine or HAProxy comes to listen on it half a minute later.
PORTS = range(20_000, 30_000)


class PortClaims:
    """Ports of one address that no other holder of claims on this host is given.

    Claims end with `release`, or with the process, however it ends.
    """

    def __init__(self, host: str, ports: range = PORTS) -> None:
        self._host = host
        self._ports = ports
        self._claims: list[socket.socket] = []

    def take(self, count: int) -> tuple[int, ...]:
        """`count` ports, at least one, that nothing listens on; raises OSError if so many are not
        left.
        """
        found: list[int] = []
        start = secrets.randbelow(len(self._ports))  # what was in use is refused for a minute
        for port in (*self._ports[start:], *self._ports[:start]):
            if self._claim(port):
                found.append(port)
                if len(found) == count:
                    return tuple(found)
        first, last = self._ports[0], self._ports[-1]
        raise OSError(f"{self._host} has no {count} free ports from {first} to {last}")

    def release(self) -> None:
        """Gives all up."""
        for claim in self._claims:
            claim.close()
        self._claims.clear()

    def _claim(self, port: int) -> bool:
        """Binds a socket name that serves no other purpose: an abstract one, which leaves no file
        and belongs to the network namespace, as ports do.
        """
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0r1-serve-port-{port}")
            with socket.socket() as probe:
                probe.bind((self._host, port))
        except OSError:
            claim.close()
            return False
        self._claims.append(claim)
        return True
