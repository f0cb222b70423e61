"""A command with the network cut off, and an account of what it sent outside all the same.

unshare -rn python cut_network.py REPORT COMMAND...

It runs in a network namespace of its own, which has the loopback interface alone. Every address
of the world is routed to that interface, where nobody answers: a connection is refused at once,
and its packets can be seen, whichever program or library sent them. REPORT gets a line for each
destination that is not this machine, and for each name that was asked for.
"""

import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

ETH_P_ALL = 3
IPV4, IPV6 = 0x0800, 0x86DD
TCP, UDP, DNS = 6, 17, 53
SYN, ACK = 0x02, 0x10
ROUTES = (
    "link set lo up",
    "route add local default dev lo",
    "-6 route add local default dev lo",
)


def main(report: str, *command: str) -> int:
    """Run the command; its exit status."""
    for words in ROUTES:
        subprocess.run(["ip", *words.split()], check=True)
    seen: set[str] = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as tap:
        tap.bind(("lo", ETH_P_ALL))
        threading.Thread(target=watch, args=(tap, seen), daemon=True).start()
        status = subprocess.run(command).returncode
    Path(report).write_text("".join(f"{line}\n" for line in sorted(seen)), encoding="utf-8")
    return status


def watch(tap: socket.socket, seen: set[str]) -> None:
    """Note where packets go, until the end of the process."""
    while True:
        packet, (_, protocol, *_) = tap.recvfrom(2048)
        line = outside(packet, protocol)
        if line is not None:
            seen.add(line)


def outside(packet: bytes, protocol: int) -> str | None:
    """Where an IP packet asks for something outside this machine; None if it does not.

    A question for a name counts even here, as a resolver on this machine passes it on.
    """
    if protocol == IPV4:
        header, kind, target = (
            4 * (packet[0] & 15),
            packet[9],
            socket.inet_ntop(socket.AF_INET, packet[16:20]),
        )
    elif protocol == IPV6:
        header, kind, target = 40, packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40])
    else:
        return None
    here = target.startswith("127.") or target == "::1"
    (port,) = struct.unpack("!H", packet[header + 2 : header + 4])
    if kind == UDP and port == DNS:
        return f"name {question(packet[header + 8 :])}"
    asks = kind == UDP or (kind == TCP and packet[header + 13] & (SYN | ACK) == SYN)
    return f"{target} port {port}" if asks and not here else None


def question(message: bytes) -> str:
    """The name that a DNS message asks for."""
    labels, at = [], 12
    while at < len(message) and message[at]:
        labels.append(message[at + 1 : at + 1 + message[at]].decode("ascii", "replace"))
        at += 1 + message[at]
    return ".".join(labels)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
