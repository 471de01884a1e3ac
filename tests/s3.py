"""A real S3 server for tests: moto's, in a process of its own, with a bucket for each who asks."""

import itertools
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "a-key",
    "AWS_SECRET_ACCESS_KEY": "a-secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}
SERVER = """
import sys, threading
from moto.s3.responses import S3Response
from moto.server import main

alone, put_object = threading.Lock(), S3Response.put_object

def put_alone(self):
    with alone:
        return put_object(self)

S3Response.put_object = put_alone
main(sys.argv[1:])
"""
"""moto's, where of two conditional writes at once one succeeds, as on S3: by itself it looks, and then it writes."""
_numbers = itertools.count()


class S3:
    """The server: its address, and the environment in which it is found."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.environment = CREDENTIALS | {"AWS_ENDPOINT_URL": self.url}

    def bucket(self) -> str:
        """The name of a new bucket."""
        name = f"bucket-{next(_numbers)}"
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=30).close()
        return name


@contextmanager
def serving() -> Iterator[S3]:
    """Run the server as long as the context lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, "-H", "127.0.0.1", "-p", str(port)],
        env=os.environ | CREDENTIALS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = S3(port)
        for _ in range(600):
            try:
                urllib.request.urlopen(server.url, timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, "moto's server ended"
                time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()
