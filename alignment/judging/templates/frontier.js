"use strict";
(() => {
  const box = document.getElementById("frontier"), chart = box.querySelector("svg");
  const tip = document.getElementById("tip"), ring = chart.querySelector(".ring");
  const points = JSON.parse(chart.dataset.points);
  const told = (point, name) => point.told.find(([each]) => each === name)[1];
  const marks = [...chart.querySelectorAll(".point")];
  const choices = document.getElementById("choices"), passed = document.getElementById("passed");
  for (const mark of marks) mark.querySelector("title").remove(); // the box tells it
  let shown = points, at = -1;

  // A point's settings, beside it.
  const show = (index) => {
    at = index;
    const point = points[index];
    const head = document.createElement("b"), list = document.createElement("dl");
    head.textContent = point.name;
    for (const [name, value] of point.told) {
      const term = document.createElement("dt"), said = document.createElement("dd");
      term.textContent = name;
      said.textContent = value;
      list.append(term, said);
    }
    tip.replaceChildren(head, list);
    tip.hidden = false;
    ring.setAttribute("transform", `translate(${point.x} ${point.y})`);
    ring.setAttribute("visibility", "visible");
    const scale = chart.clientWidth / 900, x = point.x * scale, y = point.y * scale;
    const right = x + 16 + tip.offsetWidth <= box.clientWidth;
    tip.style.left = `${Math.max(0, right ? x + 16 : x - 16 - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(0, Math.min(y - tip.offsetHeight / 2, box.clientHeight - tip.offsetHeight))}px`;
  };
  const hide = () => {
    at = -1;
    tip.hidden = true;
    ring.setAttribute("visibility", "hidden");
  };
  chart.addEventListener("pointermove", (event) => {
    const frame = chart.getBoundingClientRect(), scale = 900 / frame.width;
    const x = (event.clientX - frame.left) * scale, y = (event.clientY - frame.top) * scale;
    let best = null, nearest = 18;
    for (const point of shown) {
      const distance = Math.hypot(point.x - x, point.y - y);
      if (distance < nearest) [best, nearest] = [point, distance];
    }
    if (best) show(points.indexOf(best));
    else hide();
  });
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const last = shown.length - 1, now = at < 0 ? -1 : shown.indexOf(points[at]);
    const moves = { ArrowRight: Math.min(last, now + 1), ArrowLeft: Math.max(0, now - 1), Home: 0, End: last };
    if (event.key === "Escape") hide();
    else if (event.key in moves && shown.length) {
      event.preventDefault();
      show(points.indexOf(shown[moves[event.key]]));
    }
  });

  // What is shown: the points, the line of the best, and the table of the best within each KL.
  const ticked = (name) => new Set([...choices.elements[name].length === undefined
    ? [choices.elements[name]] : choices.elements[name]].filter((each) => each.checked).map((each) => each.value));
  const table = document.getElementById("rewards"), reference = Number(table.dataset.reference);
  const write = (row, values) => {
    for (const [name, value] of Object.entries(values)) row.querySelector(`[data-name="${name}"]`).textContent = value;
  };
  const update = () => {
    const methods = ticked("method"), betas = ticked("beta");
    const chosen = (each) => methods.has(each.method) && betas.has(each.beta);
    shown = points.filter((point) => chosen(point) && (point.passed || !passed.checked));
    const kept = new Set(shown);
    marks.forEach((mark, index) => mark.toggleAttribute("hidden", !kept.has(points[index])));
    for (const way of chart.querySelectorAll(".way")) {
      way.toggleAttribute("hidden", passed.checked || !chosen(way.dataset));
    }
    const best = [];
    for (const point of [...shown].sort((a, b) => a.kl - b.kl || b.reward - a.reward)) {
      if (!best.length || point.reward > best[best.length - 1].reward) best.push(point);
    }
    chart.querySelector(".best").setAttribute("points", best.map(({ x, y }) => `${x},${y}`).join(" "));
    for (const row of table.tBodies[0].rows) {
      const found = best.filter((point) => point.kl <= Number(row.dataset.limit)).pop();
      const most = row.dataset.ceiling === "" ? NaN : Number(row.dataset.ceiling) - reference;
      const part = found && most > 0 ? (100 * (found.reward - reference) / most).toFixed(1) : null;
      write(row, {
        "best reward": found ? told(found, "reward") : "–",
        of: found ? found.name : "–",
        "its KL": found ? found.kl.toFixed(2) : "–",
        gates: found ? told(found, "gates") : "–",
        "of the ceiling": part === null ? "–" : `${row.dataset.doubt}${part}%`,
      });
    }
    document.getElementById("told").hidden = shown.length === points.length;
    hide();
  };
  if (points.length) {
    choices.hidden = false;
    choices.addEventListener("change", update);
    choices.addEventListener("submit", (event) => event.preventDefault());
    choices.reset();
  }
})();
