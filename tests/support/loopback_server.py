"""An HTTP server on 127.0.0.1 for the length of a `with`: what the tests' scripted services have in common.

class Echo(LoopbackServer):
    def respond(self, handler, body: bytes): send(handler, 200, {"path": handler.path})

with Echo() as server: ... server.address
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LoopbackServer:
    """Answers every GET and POST by `respond(handler, body)`, each in a thread of its own."""

    def __init__(self):
        handler = type("Handler", (Handler,), {"outer": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def respond(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        raise NotImplementedError


class Handler(BaseHTTPRequestHandler):
    """Reads the request's body and hands it on; a client that has gone is no error."""

    outer: LoopbackServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        try:
            self.outer.respond(self, body)
        except (BrokenPipeError, ConnectionResetError):
            pass

    do_POST = do_GET

    def log_message(self, *arguments):
        pass


def send(handler: BaseHTTPRequestHandler, status: int, body, headers: dict | None = None) -> None:
    """Answer with JSON: `body` is the text, its bytes, or what it is made from."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    content = text.encode() if isinstance(text, str) else text
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": len(content), **(headers or {})}.items():
        handler.send_header(name, str(value))
    handler.end_headers()
    handler.wfile.write(content)
