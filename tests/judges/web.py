"""Starts Apache and stand-ins for its backends, asks what it is told to ask, and prints the answers.

Standard input: {"apache": [command], "requests": [{"port", "host", "method", "path", "headers",
"start": backends to start before it, each a socket path or a port, "write": files to write before it}, ...]}. A request may have "raw", the text that is
sent as it is, "sni", the name that TLS is told (nothing: none), "address" and "source", where it goes to and comes from, and "plain", whether it goes
without TLS. There may be "front", the command of a second server, and "ready", the ports to wait for. Standard output: one {"status", "headers", "body"} per request; a
stand-in answers with what it was asked, as JSON. What Apache says goes to standard error.
"""

import http.client
import http.server
import json
import os
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = {
            "backend": self.server.backend,
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": len(body),
        }
        answer = json.dumps(asked).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Strict-Transport-Security", "max-age=1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_POST = do_HEAD = do_PUT = do_GET

    def address_string(self):
        return "-"

    def log_message(self, *_):
        pass


class Patient:
    daemon_threads = True

    def handle_error(self, request, client_address):
        # Apache breaks off what it keeps open when it is stopped.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class UnixServer(Patient, socketserver.ThreadingUnixStreamServer):
    pass


class TcpServer(Patient, socketserver.ThreadingTCPServer):
    allow_reuse_address = True


def serve(backend):
    if isinstance(backend, int):
        server = TcpServer(("127.0.0.1", backend), Echo)
    else:
        server = UnixServer(backend, Echo)
        os.chmod(backend, 0o777)
    server.backend = backend
    threading.Thread(target=server.serve_forever, daemon=True).start()


def connected(request):
    port = request.get("port", 443)
    source = (request["source"], 0) if "source" in request else None
    link = http.client.HTTPConnection(request.get("address", "127.0.0.1"), port, timeout=20, source_address=source)
    link.connect()
    if not request.get("plain", port == 80):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        name = request["sni"] if "sni" in request else request["host"]
        link.sock = context.wrap_socket(link.sock, server_hostname=name)
    return link


def ask(request):
    link = connected(request)
    if "raw" in request:
        link.sock.sendall(request["raw"].encode("latin1"))
        response = http.client.HTTPResponse(link.sock)
        response.begin()
        return told(response)
    link.putrequest(request.get("method", "GET"), request["path"], skip_host=True)
    link.putheader("Host", request["host"])
    # A connection kept open would make Apache complain when it is stopped meanwhile.
    link.putheader("Connection", "close")
    for name, value in request.get("headers", {}).items():
        link.putheader(name, value)
    link.endheaders()
    return told(link.getresponse())


def told(response):
    body = response.read().decode("utf8", "replace")
    headers = {}
    for name, value in response.getheaders():
        headers.setdefault(name.lower(), []).append(value)
    try:
        body = json.loads(body)
    except ValueError:
        pass
    return {"status": response.status, "headers": headers, "body": body}


def reachable(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def main():
    task = json.load(sys.stdin)
    apache = subprocess.Popen(
        task["apache"], stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
    )
    started = [apache]
    if "front" in task:
        front = subprocess.Popen(
            task["front"], stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
        )
        started.append(front)
    for port in task.get("ready", [443]):
        for _ in range(200):
            if reachable(port) or any(one.poll() is not None for one in started):
                break
            time.sleep(0.05)
    try:
        for request in task["requests"]:
            # So that what happens without a backend can be asked before.
            for backend in request.pop("start", []):
                serve(backend)
            for path, text in request.pop("write", {}).items():
                with open(path, "w", encoding="utf8") as file:
                    file.write(text)
            print(json.dumps(ask(request)), flush=True)
    finally:
        for one in started:
            # The script that starts it may not pass a signal on.
            os.killpg(one.pid, signal.SIGTERM)
            one.wait()


if __name__ == "__main__":
    main()
