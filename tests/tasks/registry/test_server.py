"""MLflow's first page prepares a new browser: the side for training runs, no assistant, our columns of the runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.registry.columns import TAG
from tasks.registry.server import PREFERRED, with_preferences

PAGE = "<html><head><title>MLflow</title><script defer src='main.js'></script></head><body></body></html>"
NODE = shutil.which("node")
COLUMNS = 'MLflowLocalStorage-1.1-ExperimentPage-["{}"]-ReactComponentState'
BROWSER = """
const localStorage = {
  getItem: (key) => key in held ? held[key] : null,
  setItem: (key, value) => { held[key] = value; },
};
class XMLHttpRequest {
  open() {}
  setRequestHeader() {}
  send() { this.response = typeof answer === "string" ? answer : JSON.stringify(answer); }
}
"""
TELL = "process.stdout.write(JSON.stringify(held));"
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


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_what_a_browser_remembers_already_stays_and_the_rest_is_set() -> None:
    chosen = {"mlflow.workflowType_v1": '"genai"', COLUMNS.format(1): "my own"}
    experiments = [{"experiment_id": n, "tags": [{"key": TAG, "value": json.dumps({"state": f"s{n}"})}]} for n in "12"]
    remembered = run_script(chosen, {"experiments": [*experiments, {"experiment_id": "3"}]})
    ours = {name: json.dumps(value) for name, value in PREFERRED.items()} | {COLUMNS.format(2): "s2"}
    assert remembered == ours | chosen


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_without_an_answer_about_experiments_the_rest_is_set() -> None:
    assert run_script({}, "no JSON of experiments") == {name: json.dumps(value) for name, value in PREFERRED.items()}


def run_script(remembered: dict[str, str], answer: object) -> dict[str, str]:
    """What a browser remembers after the page's script, where MLflow answers with this."""
    script = with_preferences(PAGE).partition("<script>")[2].partition("</script>")[0]
    given = f"const held = {json.dumps(remembered)}, answer = {json.dumps(answer)};"
    done = subprocess.run([str(NODE), "-"], input=given + BROWSER + script + TELL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_mlflow_serves_its_page_with_the_script(tmp_path: Path) -> None:
    """In a process of its own: importing MLflow's server warns. It fails where an upgrade renames the page's view.

    And in a folder of its own, where it makes the database that it would keep runs in.
    """
    done = subprocess.run([sys.executable, "-c", SERVE], capture_output=True, text=True, check=True, cwd=tmp_path)
    first, _, page = done.stdout.partition("\n")
    assert first == "200 text/html; charset=utf-8 False"
    assert '"mlflow.workflowType_v1": "machine_learning"' in page
    assert "static-files/static/js/main" in page
