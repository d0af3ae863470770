"""Tries kinds of sockets that get past a missing network, and io_uring."""
import ctypes
import os
import socket

for name, arguments in (
    ("vsock", (40, socket.SOCK_STREAM, 0)),
    ("packet", (17, socket.SOCK_RAW, 0)),
    ("netlink generic", (16, socket.SOCK_RAW, 16)),
    ("raw", (socket.AF_INET, socket.SOCK_RAW, 1)),
):
    try:
        socket.socket(*arguments).close()
        print("DONE", name)
    except OSError as error:
        print(f"{name}: {error.strerror}")
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(425, 4, ctypes.create_string_buffer(256)) >= 0:
    print("DONE io_uring")
else:
    print(f"io_uring: {os.strerror(ctypes.get_errno())}")
print("#end")
