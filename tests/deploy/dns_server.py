"""A DNS server that resolves every name to the addresses in a file, which is read for each query: dns_server.py PORT FILE"""

import socket
import struct
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    query, client = server.recvfrom(512)
    end = query.index(b"\0", 12) + 5
    (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
    with open(sys.argv[2], encoding="ascii") as file:
        addresses = file.read().split() if kind == 1 else []
    response = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(addresses), 0, 0) + query[12:end]
    for address in addresses:
        # Pointer to the name of the query, type A, class IN, TTL of 30 s as in a cluster.
        response += b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 30, 4) + socket.inet_aton(address)
    server.sendto(response, client)
