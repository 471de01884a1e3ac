"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // Curves: the values at the step under the pointer, or at the one that the arrow keys reach.
  const LEFT = 46, SPAN = 284;
  for (const chart of document.querySelectorAll("svg.curve")) {
    const lines = JSON.parse(chart.dataset.lines);
    const first = Number(chart.dataset.first), last = Number(chart.dataset.last);
    const steps = [...new Set(lines.flatMap((line) => line.map(([step]) => step)))].sort((a, b) => a - b);
    const cursor = chart.querySelector(".cursor");
    const key = chart.parentElement.querySelector(".key");
    const shown = [...key.querySelectorAll("b")], step = key.querySelector(".step");
    const before = [step.textContent, ...shown.map((each) => each.textContent)];
    const written = (value) => (value === undefined ? "–" : String(Number(value.toPrecision(4))).replace("-", "−"));
    let at = steps.length - 1;
    const show = (index) => {
      at = Math.min(steps.length - 1, Math.max(0, index));
      const x = LEFT + SPAN * (last > first ? (steps[at] - first) / (last - first) : 0.5);
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.setAttribute("visibility", "visible");
      step.textContent = "step " + steps[at];
      lines.forEach((line, number) => {
        const found = line.find(([each]) => each === steps[at]);
        shown[number].textContent = written(found && found[1]);
      });
    };
    const hide = () => {
      cursor.setAttribute("visibility", "hidden");
      [step.textContent, ...before.slice(1)].forEach((text, number) => {
        if (number) shown[number - 1].textContent = text;
      });
      step.textContent = before[0];
    };
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const share = ((event.clientX - box.left) / box.width * 340 - LEFT) / SPAN;
      const wanted = first + share * (last - first);
      show(steps.reduce((best, each, index) =>
        Math.abs(each - wanted) < Math.abs(steps[best] - wanted) ? index : best, 0));
    });
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("blur", hide);
    chart.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: steps.length - 1 };
      if (event.key in moves) {
        event.preventDefault();
        show(moves[event.key]);
      }
    });
  }

  // Samples: ordered, searched, and a few at a time.
  const list = byId("list");
  if (list) {
    const FEW = 10;
    const written = (row) => [...row.querySelectorAll(".prompt, .turn, .text p")].map((each) => each.textContent);
    const rows = [...list.querySelectorAll(".sample")].map((row) => (
      { row, text: written(row).join(" ").toLowerCase() }));
    const order = byId("order"), find = byId("find"), found = byId("found"), more = byId("more");
    let room = FEW;
    const number = (row, name, missing) => (row.dataset[name] === "" ? missing : Number(row.dataset[name]));
    const orders = {
      number: (a, b) => number(a, "number") - number(b, "number"),
      gain: (a, b) => number(b, "gain", -Infinity) - number(a, "gain", -Infinity),
      loss: (a, b) => number(a, "gain", Infinity) - number(b, "gain", Infinity),
      changed: (a, b) => number(b, "changed", -1) - number(a, "changed", -1),
      length: (a, b) => number(b, "length") - number(a, "length"),
    };
    const update = () => {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      const by = (a, b) => orders[order.value](a.row, b.row) || orders.number(a.row, b.row);
      const fitting = [...rows].sort(by).filter(({ text }) => words.every((word) => text.includes(word)));
      const shown = new Set(fitting.slice(0, room));
      for (const each of rows) each.row.hidden = !shown.has(each);
      list.append(...[...rows].sort(by).map(({ row }) => row));
      found.textContent = fitting.length === rows.length
        ? `${shown.size} of ${rows.length} shown`
        : `${fitting.length} of ${rows.length} fit, ${shown.size} shown`;
      more.hidden = shown.size === fitting.length;
    };
    byId("tools").hidden = false;
    byId("tools").addEventListener("submit", (event) => event.preventDefault());
    const again = () => { room = FEW; update(); };
    order.addEventListener("change", again);
    find.addEventListener("input", again);
    byId("marks").addEventListener("change", (event) => list.classList.toggle("marked", event.target.checked));
    more.addEventListener("click", () => { room += 20; update(); });
    update();
  }

  // On paper nothing can be opened.
  const closed = [];
  window.addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details:not([open])")) {
      each.open = true;
      closed.push(each);
    }
  });
  window.addEventListener("afterprint", () => { while (closed.length) closed.pop().open = false; });
})();
