"""Tries to reach the metadata service, the Internet, this host and a name server."""
import socket
import sys

gateway, host = sys.argv[1:3]
for name, address, port in (
    ("metadata", "169.254.169.254", 80),
    ("Internet", "1.1.1.1", 443),
    ("bridge", gateway, 22),
    ("host", host, 22),
):
    try:
        socket.create_connection((address, port), 3).close()
        print("DONE", name)
    except ConnectionRefusedError:
        print("DONE", name, "(it refused, so it was reached)")
    except OSError as error:
        print(f"{name}: {error.strerror or error}")
try:
    socket.getaddrinfo("example.com", 80)
    print("DONE DNS")
except OSError as error:
    print(f"DNS: {error.strerror or error}")
with open("/proc/net/dev", encoding="ascii") as lines:
    cards = [line.split(":")[0].strip() for line in lines if ":" in line]
print("cards:", *cards)
if any(card != "lo" and not card.startswith(("tunl", "sit", "gre", "erspan", "ip6", "ip_vti"))
       for card in cards):
    print("DONE card")
print("#end")
