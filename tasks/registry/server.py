"""The MLflow server as an application for uvicorn, whose pages open on the side for training runs and on our columns.

What MLflow's pages remember is in the browser, and no setting of the server decides it: the first page sets what the
browser does not have yet. What a person chose in the pages before stays.
"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.importing import collector_paused
from tasks.registry.columns import TAG

if TYPE_CHECKING:
    from fastapi import FastAPI

PREFERRED: dict[str, Any] = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,  # it opens itself once
    "mlflow.home.getting-started.collapsed_v1": True,
    "mlflow.settings.telemetry.enabled_v1": False,
    "mlflow.telemetry.info.alert.dismissed_v1": True,
    "_mlflow_model_registry_promo_modal_dismissed_v1": True,
}
"""What a new browser is to remember, by MLflow's keys; one that a later release does not know does nothing."""

SCRIPT = """
<script>
  const prefer = (key, value) => localStorage.getItem(key) === null && localStorage.setItem(key, value);
  Object.entries(PREFERRED).forEach(([key, value]) => prefer(key, JSON.stringify(value)));
  try {
    const asked = new XMLHttpRequest();  // before MLflow's own script, which reads what is remembered
    asked.open("POST", "ajax-api/2.0/mlflow/experiments/search", false);
    asked.setRequestHeader("Content-Type", "application/json");
    asked.send(JSON.stringify({max_results: 100}));
    for (const {experiment_id, tags = []} of JSON.parse(asked.response).experiments ?? []) {
      const view = tags.find(({key}) => key === TAG);
      const key = `MLflowLocalStorage-1.1-ExperimentPage-["${experiment_id}"]-ReactComponentState`;
      if (view) prefer(key, JSON.parse(view.value).state);
    }
  } catch (error) {
    console.warn(error);  // the table of runs has MLflow's columns then
  }
</script>
"""


def create_app() -> "FastAPI":
    """MLflow's application, made once per process; its first page has the script."""
    with collector_paused():
        from mlflow.server import app as pages
        from mlflow.server.fastapi_app import app
    first = Path(pages.static_folder or "") / "index.html"
    if first.is_file():
        pages.view_functions["serve"] = partial(with_preferences, first.read_text(encoding="utf-8"))
    made: FastAPI = app
    return made


def with_preferences(page: str) -> str:
    """The page with the script at the end of its head, before MLflow's own, which is deferred."""
    script = SCRIPT.replace("PREFERRED", json.dumps(PREFERRED)).replace("TAG", json.dumps(TAG))
    return page.replace("</head>", f"{script}</head>", 1)
