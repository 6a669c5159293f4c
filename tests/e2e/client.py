"""Loads in the client guest, as `python3 client.py stream|pages HOST PORT FILE`. One process for all connections of a load: to start
one takes up to a second in the guest while the machine is busy. Tells how it is in FILE, until FILE.stop exists; then makes FILE.end."""

import os
import socket
import sys
import time

kind, host, port, me = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]


def now():
    return time.time_ns() // 1000


def connect(timeout):
    return socket.create_connection((host, port), timeout)


def tell(mode, text):
    # Closing a file is what makes the guest's kernel hand it to the host.
    with open(me, mode) as file:
        file.write(text)


def stream():
    """An endless download of small packets. Where nothing comes for a second it says something itself, so that a peer that does not
    know the connection can reset it."""
    s = connect(10)
    s.sendall(b"GET /100/10000000/400 HTTP/1.0\r\n\r\n")
    head = b""
    while b"\r\n\r\n" not in head:
        head += s.recv(4096)
    by = head.split(b"Served-By: ")[1].split(b"\r\n")[0].decode()
    s.settimeout(1)
    total, told = 0, 0
    while not os.path.exists(me + ".stop"):
        try:
            data = s.recv(65536)
            if not data:
                break
            total += len(data)
        except TimeoutError:
            s.send(b"x")
        if time.monotonic() - told > 0.05:
            told = time.monotonic()
            tell("w", f"{by} {total}\n")
    s.close()


def pages():
    """Pages one after the other, each over a connection of its own: when it was asked for, when it was there, who served it;
    in FILE.failed when such were asked for that did not come."""
    while not os.path.exists(me + ".stop"):
        asked = now()
        try:
            s = connect(0.7)
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while data := s.recv(4096):
                answer += data
            s.close()
            by = answer.split(b"served by ")[1].decode().strip()
            tell("a", f"{asked} {now()} {by}\n")
        except (OSError, IndexError):
            with open(me + ".failed", "a") as file:
                file.write(f"{asked}\n")
        time.sleep(0.005)


try:
    {"stream": stream, "pages": pages}[kind]()
except OSError as error:
    print(error)
open(me + ".end", "w").close()
