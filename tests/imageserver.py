"""A service on this machine that makes images as `painter.draw` does, and fails as services do, by caption."""

import base64
import gzip
import io
import json
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import painter
from PIL import Image


def encoded(image, form="PNG"):
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, form, **({"lossless": True} if form == "WEBP" else {}))
    return file.getvalue()


@cache
def bomb():
    return encoded(Image.new("1", (12_000, 9_000)))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.asked.append((asked, dict(self.headers), self.path, time.monotonic()))
            left = server.faults.get(asked["caption"], server.always)
            kind = left.pop(0) if len(left) > 1 else (left or ["png"])[0]  # the last one lasts
            server.active += 1
            server.most = max(server.most, server.active)
        try:
            self.answer(kind, asked)
        except OSError:
            self.close_connection = True
        finally:
            with server.lock:
                server.active -= 1

    def do_GET(self):
        self.send(405)

    def send(self, status=200, body=b"", kind="image/png", **headers):
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, content, status=200):
        self.send(status, json.dumps(content).encode(), "application/json")

    def answer(self, kind, asked):
        image, server = asked.get("image"), self.server
        image = image and Image.open(io.BytesIO(base64.b64decode(image)))
        made = painter.draw(
            asked["caption"], seed=asked["seed"], size=asked["size"], image=image, strength=asked.get("strength")
        )
        png = encoded(made)
        if kind.isdecimal():
            return self.send(int(kind), b"<html>no</html>", "text/html")
        {
            "png": lambda: self.send(body=png),
            "webp": lambda: self.send(body=encoded(made, "WEBP"), kind="image/webp"),
            "jpeg": lambda: self.send(body=encoded(made, "JPEG"), kind="image/jpeg"),
            "json": lambda: self.json({"image": base64.b64encode(png).decode()}),
            "data": lambda: self.json({"image": "data:image/png;base64," + base64.b64encode(png).decode()}),
            "other-json": lambda: self.json({"error": {"message": "queue full"}}),
            "no-base64": lambda: self.json({"image": "%%%"}),
            "html": lambda: self.send(body=b"<!DOCTYPE html><p>busy", kind="text/html"),
            "empty": lambda: self.send(),
            "bomb": lambda: self.send(body=bomb()),
            "flood": self.flood,
            "packed": lambda: self.send(body=gzip.compress(png), Content_Encoding="gzip"),
            "429-soon": lambda: self.send(429, Retry_After="1"),
            "429-late": lambda: self.send(429, Retry_After="86400"),
            "reset": self.reset,
            "cut": lambda: self.send(body=png[:50], Content_Length=str(len(png))),
            "busy": lambda: (time.sleep(0.2), self.send(body=png)),
            "held": lambda: (server.free.wait(60), self.send(body=png)),
            "policy": lambda: self.json({"detail": "against the policy"}, 422),
            "repeats": lambda: self.json({"error": f"no right: {self.headers['Authorization']}"}, 401),
            "away": lambda: self.send(307, Location="http://127.0.0.1:1/elsewhere"),
        }[kind]()
        if kind == "cut":
            self.close_connection = True

    def flood(self):
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        self.close_connection = True
        for _ in range(10_000):
            self.wfile.write(bytes(2**18))

    def reset(self):
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """`faults`: caption -> what each try is answered with, the last lasting; `always`: the same for other captions."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.faults, self.always = [], {}, ["png"]
        self.active, self.most, self.lock = 0, 0, threading.Lock()
        self.free = threading.Event()  # what is `held` is answered after it

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/make?model=x"

    def handle_error(self, request, address):
        pass


@contextmanager
def serving():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.free.set()
            with suppress(OSError):
                server.shutdown()
            thread.join()
