#!/usr/bin/env python3
"""The world outside, for the egress tests: a resolver and servers on addresses set aside for
documentation, in a network namespace of their own. Every connection and every question is written
down, so that a test can tell that nothing came.

servers.py FOLDER: certificates are made in FOLDER, a repository to clone too; `seen.log` there is
the record, and `ready` appears once all listen.
"""

import base64
import hashlib
import http.server
import os
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
import time

FOLDER = sys.argv[1]
DNS = "192.0.2.53"
WEB = "192.0.2.80"
OTHER = "198.51.100.66"  # what nobody is to reach

LOG = open(os.path.join(FOLDER, "seen.log"), "a", buffering=1)
LOCK = threading.Lock()


def seen(what):
    with LOCK:
        LOG.write(what + "\n")


# Name: a list of answers, used in turn; an answer is a list of addresses and names.
NAMES = {
    "allowed.example": [[WEB]],
    "git.example": [[WEB]],
    "api.example": [[WEB]],
    "other.example": [[OTHER]],
    "plain.example": [[WEB]],
    "loop.example": [["127.0.0.1"]],
    "meta.example": [["169.254.169.254"]],
    "private.example": [["10.0.0.5"]],
    "mixed.example": [[WEB, "10.0.0.5"]],
    "alias.example": [["db.internal.example", "10.0.0.5"]],
    "supervisor.example": [["192.0.2.1"]],
    "rebind.example": [[WEB], ["127.0.0.1"]],
    "slow.example": [[WEB]],
}
TURNS = {}


def coded(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def answer(data):
    at, labels = 12, []
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode("latin-1"))
        at += data[at] + 1
    name = ".".join(labels).lower()
    question = data[12 : at + 5]
    kind = struct.unpack(">H", data[at + 1 : at + 3])[0]
    seen(f"dns {name} {kind}")
    out, count = b"", 0
    known = NAMES.get(name)
    if known is None and name.endswith(".wild.example"):
        known = [[WEB]]
    if known is not None and kind == 1:
        turn = TURNS.get(name, 0)
        TURNS[name] = turn + 1
        owner = coded(name)
        for each in known[min(turn, len(known) - 1)]:
            if each[0].isdigit():
                out += owner + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(each)
            else:
                alias = coded(each)
                out += owner + struct.pack(">HHIH", 5, 1, 0, len(alias)) + alias
                owner = alias
            count += 1
    code = 0x8580 if known is not None else 0x8583
    return data[:2] + struct.pack(">HHHHH", code, 1, count, 0, 0) + question + out


def serve_dns():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((DNS, 53))
    while True:
        data, peer = sock.recvfrom(4096)
        try:
            sock.sendto(answer(data), peer)
        except (IndexError, OSError):
            pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, body, status=200, headers=()):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def begin_chunks(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def body(self):
        """The body's pieces as they come."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while True:
                size = int(self.rfile.readline().strip(), 16)
                data = self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    return
                yield data
        left = int(self.headers.get("Content-Length") or 0)
        while left > 0:
            data = self.rfile.read(min(left, 1 << 16))
            if not data:
                return
            left -= len(data)
            yield data

    def credential(self):
        return self.headers.get("Authorization") or self.headers.get("X-Key") or ""

    def handle_any(self):
        path = self.path.split("?")[0]
        seen(f"http {self.server.label} {self.command} {self.path} auth={self.credential()}")
        if path.startswith("/repo.git/"):
            return self.serve_file(path)
        if path.endswith("/echo"):
            body = b"".join(self.body())
            text = f"{self.requestline}\n{self.headers}".encode() + body
            return self.reply(text, headers=[("X-Echo", self.credential())])
        if path.endswith("/upload"):
            digest, size = hashlib.sha256(), 0
            for data in self.body():
                digest.update(data)
                size += len(data)
            return self.reply(f"{size} {digest.hexdigest()}\n".encode())
        if path.endswith("/download"):
            self.send_response(200)
            self.send_header("Content-Length", str(100 << 20))
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"d" * (1 << 20))
            return None
        if path.endswith("/sse"):
            self.begin_chunks("text/event-stream")
            for i in range(5):
                self.chunk(f"data: {i} {time.time():.3f}\n\n".encode())
                time.sleep(0.3)
            return self.chunk(b"")
        if path.endswith("/split"):
            # The credential, cut over chunks at every place.
            self.begin_chunks("text/plain")
            secret = self.credential().encode()
            for at in range(1, len(secret)):
                self.chunk(secret[:at])
                self.chunk(secret[at:])
                self.chunk(b"\n")
            return self.chunk(b"")
        if path.endswith("/error"):
            text = f"500: your {self.credential()} is bad; {base64.b64encode(self.credential().encode()).decode()}\n"
            return self.reply(text.encode(), status=500)
        if path.endswith("/redirect"):
            where = f"http://other.example/caught?key={self.credential().replace(' ', '%20')}"
            return self.reply(b"gone\n", status=302, headers=[("Location", where)])
        if path.endswith("/slow"):
            time.sleep(60)
            return None
        if path.endswith("/hostile"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
                             b"\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
            self.close_connection = True
            return None
        if path.endswith("/ws"):
            return self.websocket()
        return self.reply(b"hello from outside\n")

    def serve_file(self, path):
        name = os.path.normpath(os.path.join(FOLDER, path.lstrip("/")))
        if not name.startswith(FOLDER) or not os.path.isfile(name):
            return self.reply(b"", status=404)
        with open(name, "rb") as file:
            return self.reply(file.read())

    def websocket(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept",
                         base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        secret = self.credential().encode()
        while (text := self.hear()) is not None:
            if text == b"push":
                for i in range(3):
                    self.say(b"event %d" % i)
                    time.sleep(0.05)
            elif text == b"split":
                self.say(secret[: len(secret) // 2])
                self.say(secret[len(secret) // 2 :])
            else:
                self.say(text + b" " + secret)
        self.close_connection = True

    def hear(self):
        """The next message of a websocket; None: there is none."""
        head = self.rfile.read(2)
        if len(head) < 2 or head[0] & 0x0F == 8:
            return None
        size = head[1] & 0x7F
        if size == 126:
            size = struct.unpack(">H", self.rfile.read(2))[0]
        mask = self.rfile.read(4)
        return bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(size)))

    def say(self, text):
        size = bytes([len(text)]) if len(text) < 126 else b"\x7e" + struct.pack(">H", len(text))
        self.wfile.write(b"\x81" + size + text)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address, label, context=None):
        self.label = label
        self.context = context
        super().__init__(address, Handler)

    def get_request(self):
        sock, peer = super().get_request()
        seen(f"tcp {self.label}")
        return sock, peer

    def finish_request(self, request, client_address):
        # The handshake is the thread's, not the listener's.
        if self.context is not None:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        pass


class Canary(socketserver.ThreadingTCPServer):
    """Takes every connection, and says so."""
    daemon_threads = True
    allow_reuse_address = True


def serve_canary(address):
    class Take(socketserver.BaseRequestHandler):
        def handle(self):
            seen(f"canary {address[0]}:{address[1]}")
            self.request.sendall(b"SSH-2.0-canary\r\n")

    threading.Thread(target=Canary(address, Take).serve_forever, daemon=True).start()


def serve_udp_canary(address):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(address)
    while True:
        sock.recvfrom(4096)
        seen(f"canary udp {address[0]}:{address[1]}")


def run(*argv, **more):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)


def make_certificates():
    names = "allowed.example git.example *.wild.example rebind.example api.example"
    san = ",".join(f"DNS:{name}" for name in names.split())
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
        "/CN=test CA", "-keyout", f"{FOLDER}/ca.key", "-out", f"{FOLDER}/ca.pem")
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=allowed.example",
        "-keyout", f"{FOLDER}/web.key", "-out", f"{FOLDER}/web.csr")
    with open(f"{FOLDER}/san", "w") as file:
        file.write(f"subjectAltName={san}\n")
    run("openssl", "x509", "-req", "-in", f"{FOLDER}/web.csr", "-CA", f"{FOLDER}/ca.pem", "-CAkey",
        f"{FOLDER}/ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{FOLDER}/san", "-out",
        f"{FOLDER}/web.pem")


def make_repository():
    work = f"{FOLDER}/work"
    env = dict(os.environ, GIT_AUTHOR_NAME="t", GIT_AUTHOR_EMAIL="t@allowed.example",
               GIT_COMMITTER_NAME="t", GIT_COMMITTER_EMAIL="t@allowed.example",
               GIT_CONFIG_NOSYSTEM="1", HOME=FOLDER)
    run("git", "init", "-q", "-b", "main", work, env=env)
    with open(f"{work}/README", "w") as file:
        file.write("cloned from outside\n")
    run("git", "-C", work, "add", "README", env=env)
    run("git", "-C", work, "commit", "-q", "-m", "first", env=env)
    run("git", "clone", "-q", "--bare", work, f"{FOLDER}/repo.git", env=env)
    run("git", "-C", f"{FOLDER}/repo.git", "update-server-info", env=env)


def main():
    make_certificates()
    make_repository()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{FOLDER}/web.pem", f"{FOLDER}/web.key")
    threading.Thread(target=serve_dns, daemon=True).start()
    for server in (Server((WEB, 80), "web"), Server((WEB, 443), "web-tls", context),
                   Server((WEB, 8080), "api"), Server((WEB, 8443), "api-tls", context),
                   Server((OTHER, 80), "other")):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    for address in ((WEB, 22), (WEB, 25), (OTHER, 443), (OTHER, 22)):
        serve_canary(address)
    for address in ((WEB, 53), (OTHER, 53), (WEB, 443)):
        threading.Thread(target=serve_udp_canary, args=(address,), daemon=True).start()
    with open(f"{FOLDER}/ready", "w"):
        pass
    while True:
        time.sleep(3600)


main()
