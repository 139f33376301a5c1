#!/usr/bin/env python3
"""Traffic for the trials: a server that tells each client the address that it sees, and clients that count.

    flow.py serve                      in the namespace internet, at each of its addresses
    flow.py many N [SOURCE]            N new UDP flows; how many were seen from which address
    flow.py steady [SOURCE]            one UDP flow, one packet each 20 ms until SIGTERM; what was lost, for how long at most
    flow.py fresh                      the same with a new flow for each packet

SOURCE is an address to bind to.
"""
import collections
import select
import signal
import socket
import sys
import time

PORT = 7
SERVERS = [f"203.0.113.{n}" for n in range(10, 20)]


def serve():
    sockets = []
    for address in SERVERS:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((address, PORT))
        sockets.append(one)
    while True:
        for one in select.select(sockets, [], [])[0]:
            packet, client = one.recvfrom(100)
            one.sendto(packet + b" " + client[0].encode(), client)


def flow(server, source=None):
    new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if source:
        new.bind((source, 0))
    new.connect((server, PORT))
    return new


def ask(one, number):
    # A flow whose way has just changed is refused once; that packet is lost like another.
    try:
        one.send(str(number).encode())
    except OSError:
        pass


def answers(sockets, until):
    """What comes back before the time is over, as (number, address)."""
    while (left := until - time.monotonic()) > 0:
        for one in select.select(sockets, [], [], left)[0]:
            try:
                number, address = one.recv(100).decode().split()
            except OSError:
                continue
            yield int(number), address


def many(count, source=None):
    sockets = [flow(SERVERS[n % len(SERVERS)], source) for n in range(count)]
    for number, one in enumerate(sockets):
        ask(one, number)
        time.sleep(0.005)
    seen = {}
    for number, address in answers(sockets, time.monotonic() + 2):
        seen[number] = address
        if len(seen) == count:
            break
    shares = collections.Counter(seen.values())
    print(*(f"{address}={shares[address]}" for address in sorted(shares)), f"lost={count - len(seen)}")


def stream(new_each_time, source=None):
    running = True

    def stop(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    pending, ways, number = [], [], 0
    longest, last = 0.0, time.monotonic()
    heard = set()
    while running:
        if new_each_time or not pending:
            pending = pending[-50:] + [flow(SERVERS[number % len(SERVERS)], source)]
        ask(pending[-1], number)
        number += 1
        for one, address in answers(pending, time.monotonic() + 0.02):
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            heard.add(one)
            if ways[-1:] != [address]:
                ways.append(address)
    longest = max(longest, time.monotonic() - last)
    changes = "many" if new_each_time else ",".join(ways)
    print(f"sent={number} lost={number - len(heard)} gap={longest * 1000:.0f}ms ways={changes}", flush=True)


match sys.argv[1:]:
    case ["serve"]:
        serve()
    case ["many", count, *source]:
        many(int(count), *source)
    case ["steady", *source]:
        stream(False, *source)
    case ["fresh"]:
        stream(True)
    case _:
        sys.exit(__doc__)
