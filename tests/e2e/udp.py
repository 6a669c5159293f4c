"""In the client guest, as `python3 udp.py HOST PORT FROM FLOWS`: three datagrams from each of FLOWS ports, FROM and up, one round
after the other; prints who answered as JSON. A datagram that is not answered is sent again."""

import json
import socket
import sys

host, port, first, flows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
sockets = {}
for n in range(first, first + flows):
    sockets[n] = s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind(("", n))
    s.connect((host, port))
    s.settimeout(2)


def ask(s):
    for _ in range(4):
        try:
            s.send(b"who?")
            return s.recv(100).decode()
        except TimeoutError:
            pass
        except ConnectionRefusedError:
            return "refused"
    return "nobody"


answers = {n: [] for n in sockets}
for _ in range(3):
    for n, s in sockets.items():
        answers[n].append(ask(s))
print(json.dumps(answers))
