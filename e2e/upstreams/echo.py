"""Says how Python reads a request: WSGI's PATH_INFO, parse_qsl, joined headers."""
import json
import sys
from socketserver import ThreadingMixIn
from urllib.parse import parse_qsl
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Handler(WSGIRequestHandler):
    def log_message(self, *args):
        pass


def application(environ, start_response):
    try:
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8")
        view = {
            "method": environ["REQUEST_METHOD"],
            "segments": path.split("/")[1:],
            "query": parse_qsl(environ["QUERY_STRING"], keep_blank_values=True),
            "mode": environ.get("HTTP_X_MODE", ""),
        }
    except Exception as e:
        view = {"error": repr(e)}
    start_response("200 OK", [("content-type", "application/json"), ("x-upstream", "python")])
    return [json.dumps(view).encode()]


server = Server(("127.0.0.1", 0), Handler)
server.set_app(application)
print(json.dumps({"ready": True, "address": "127.0.0.1:%d" % server.server_port}))
sys.stdout.flush()
server.serve_forever()
