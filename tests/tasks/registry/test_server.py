"""MLflow's first page prepares a new browser: the side for training runs, no assistant, our columns of the runs."""

import json
import subprocess
import sys

from tasks.registry.columns import TAG
from tasks.registry.server import PREFERRED, SCRIPT, with_preferences

PAGE = "<html><head><title>MLflow</title><script defer src='main.js'></script></head><body></body></html>"
SERVE = """
import warnings
warnings.simplefilter("ignore")
from tasks.registry.server import create_app
from starlette.testclient import TestClient
answer = TestClient(create_app(), base_url="http://127.0.0.1").get("/")
print(answer.status_code, answer.headers["content-type"], "etag" in answer.headers)
print(answer.text)
"""


def test_the_script_stands_in_the_head_and_the_rest_of_the_page_is_as_it_was() -> None:
    made = with_preferences(PAGE)
    head, _, rest = made.partition("</head>")
    assert rest == "<body></body></html>"
    assert head.startswith(PAGE.partition("</head>")[0])
    assert json.dumps(PREFERRED) in head
    assert json.dumps(TAG) in head


def test_what_a_browser_remembers_already_stays() -> None:
    assert "localStorage.getItem(key) === null && localStorage.setItem(key, value)" in SCRIPT
    assert SCRIPT.count("setItem") == 1


def test_mlflow_serves_its_page_with_the_script() -> None:
    """In a process of its own: importing MLflow's server warns. It fails where an upgrade renames the page's view."""
    done = subprocess.run([sys.executable, "-c", SERVE], capture_output=True, text=True, check=True)
    first, _, page = done.stdout.partition("\n")
    assert first == "200 text/html; charset=utf-8 False"
    assert '"mlflow.workflowType_v1": "machine_learning"' in page
    assert "static-files/static/js/main" in page
