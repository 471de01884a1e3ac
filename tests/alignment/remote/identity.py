"""The metadata service of a machine at AWS, which tells keys that hold for a minute, or is away."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event


@contextmanager
def telling(keys: Mapping[str, str], away: Event) -> Iterator[str]:
    """The address of the service, for as long as the context lasts; it refuses while `away` is set.

    Keys that hold for so short are asked for at each request.
    """

    class Telling(BaseHTTPRequestHandler):
        def _tell(self) -> None:
            told = {
                "/latest/api/token": "a-token",
                "/latest/meta-data/iam/security-credentials/": "a-role",
                "/latest/meta-data/iam/security-credentials/a-role": json.dumps(
                    {
                        "AccessKeyId": keys["AWS_ACCESS_KEY_ID"],
                        "SecretAccessKey": keys["AWS_SECRET_ACCESS_KEY"],
                        "Token": "a-session",
                        "Expiration": (datetime.now(UTC) + timedelta(minutes=1)).isoformat(),
                    }
                ),
            }[self.path].encode()
            self.send_response(403 if away.is_set() else 200)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_PUT = _tell

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Telling)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
