"""A web server on this machine whose urls do what urls on the web do: `/NAME/KIND`, the same bytes for the same NAME.

It speaks TLS too, on the same port, with a certificate that nobody trusts.
"""

import gzip
import io
import socket
import ssl
import struct
import threading
import time
import zlib
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

CERTIFICATE = Path(__file__).with_name("certificate.pem")
BOMB = gzip.compress(bytes(40_000_000), 1)


@cache
def picture(name, form="JPEG", side=96):
    """An image that no other name has, as bytes."""
    rng = np.random.default_rng(zlib.crc32(f"{name}{form}".encode()))
    image = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((side, side + 16))
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def png_that_claims(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        *_, name, kind = self.path.split("?")[0].split("/")
        server = self.server
        with server.lock:
            server.asked.append((self.path, time.monotonic(), dict(self.headers)))
            seen = sum(path == self.path for path, *_ in server.asked)
            server.active += kind == "busy"
            server.most = max(server.most, server.active)
        try:
            self.answer(name, kind, seen)
        except (OSError, ssl.SSLError):
            self.close_connection = True
        finally:
            with server.lock:
                server.active -= kind == "busy"

    def send(self, body=b"", status=200, kind="image/jpeg", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def to(self, location):
        self.send(status=302, Location=location)

    def endless(self, chunk, pause):
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(picture("endless")[:100])
        for _ in range(300):
            self.wfile.write(chunk)
            time.sleep(pause)

    def reset(self):
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def answer(self, name, kind, seen):
        jpeg, other = picture(name), self.server.private
        if kind.isdecimal():
            self.send(b"no", int(kind), "text/plain")
        elif kind in ("JPEG", "PNG", "WEBP", "GIF"):
            self.send(picture(name, kind), kind=f"image/{kind.lower()}")
        elif kind == "busy":
            time.sleep(0.05)
            self.send(jpeg)
        elif kind.startswith("to-"):
            self.to(f"/{name}/{kind[3:]}")
        elif kind.startswith("localhost-"):  # this server under another name
            self.to(f"http://localhost:{self.server.server_port}/{name}/{kind[10:]}")
        elif kind == "chain":
            self.to(f"../{name}/to-to-to-JPEG?x=a b#part")
        else:
            {
                "liar": lambda: self.send(jpeg, kind="text/html"),
                "html": lambda: self.send(b"\n <!DOCTYPE html><p>gone", kind="image/jpeg"),
                "empty": lambda: self.send(b""),
                "text": lambda: self.send(b"not here"),
                "small": lambda: self.send(picture(name, "PNG", 48)),
                "503-then": lambda: self.send(jpeg) if seen > 1 else self.send(status=503),
                "503-twice": lambda: self.send(jpeg) if seen > 2 else self.send(status=503),
                "403-then": lambda: self.send(jpeg) if seen > 1 else self.send(status=403),
                "429-then": lambda: self.send(jpeg) if seen > 1 else self.send(status=429, Retry_After="1"),
                "429-long": lambda: self.send(status=429, Retry_After="86400"),
                "404-long": lambda: self.send(status=404, Retry_After="3600"),
                "loop": lambda: self.to(self.path),
                "dead": lambda: self.to(f"http://{name}.invalid/"),
                "dead-host": lambda: self.to(f"http://dead.invalid/{name}"),
                "nowhere": lambda: self.to("gopher://example.org/"),
                "odd": lambda: self.to("http://[::1/"),
                "private": lambda: self.to(f"http://127.0.0.1:{other}/secret/JPEG"),
                "private-name": lambda: self.to(f"http://localhost:{other}/secret/JPEG"),
                "private-6": lambda: self.to(f"http://[::ffff:127.0.0.1]:{other}/secret/JPEG"),
                "private-number": lambda: self.to(f"http://2130706433:{other}/secret/JPEG"),
                "private-here": lambda: self.to(f"http://127.1:{self.server.server_port}/secret/JPEG"),
                "drip": lambda: self.endless(b"x", 0.1),
                "flood": lambda: self.endless(bytes(2**18), 0),
                "silent": lambda: time.sleep(3),
                "bomb": lambda: self.send(BOMB, Content_Encoding="gzip"),
                "packed": lambda: self.send(gzip.compress(jpeg), Content_Encoding="gzip"),
                "half-packed": lambda: self.send(gzip.compress(jpeg)[:-9], Content_Encoding="gzip"),
                "brotli": lambda: self.send(jpeg, Content_Encoding="br"),
                "pixels": lambda: self.send(png_that_claims(60_000, 60_000), kind="image/png"),
                "reset": self.reset,
                "reset-then": lambda: self.send(jpeg) if seen > 1 else self.reset(),
                "cut": self.cut,
                "half": lambda: self.send(jpeg[: len(jpeg) // 2]),
                "noai": lambda: self.send(jpeg, X_Robots_Tag="noindex, NoAI"),
                "noimageai": lambda: self.send(jpeg, X_Robots_Tag="noimageai"),
                "indexed": lambda: self.send(jpeg, X_Robots_Tag="noindex"),
                "claims": self.claims,
                "same": lambda: self.send(picture("the same")),
            }[kind]()

    def cut(self):
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(picture("cut")[:300])
        self.close_connection = True

    def claims(self):
        self.send_response(200)
        self.send_header("Content-Length", str(10**12))
        self.end_headers()
        self.close_connection = True

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.active, self.most, self.lock, self.private = [], 0, 0, threading.Lock(), 0
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(CERTIFICATE)

    @property
    def origin(self):
        return f"127.0.0.1:{self.server_port}"

    def url(self, name, kind, scheme="http"):
        return f"{scheme}://{self.origin}/{name}/{kind}"

    def finish_request(self, request, address):
        try:
            if request.recv(1, socket.MSG_PEEK) == b"\x16":  # a TLS handshake
                request = self.tls.wrap_socket(request, server_side=True)
            super().finish_request(request, address)
        except OSError:
            pass

    def handle_error(self, request, address):
        pass

    def requests(self, part=""):
        with self.lock:
            return [path for path, *_ in self.asked if part in path]


@contextmanager
def serving():
    """A server, and a second one that must never be asked (its port is `private`)."""
    with Server() as private, Server() as server:
        server.private, server.second = private.server_port, private
        for one in (private, server):
            threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            for one in (private, server):
                one.shutdown()


def listed(path, rows):
    """A list of urls for `urlplugin`: `(id, class, url)`."""
    import json

    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
