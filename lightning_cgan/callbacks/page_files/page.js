"use strict";
// The slider of the samples, and the charts. Text is only ever set as text: names may come from anywhere.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const thousands = (number) => number.toLocaleString("en");

  // ---- samples ------------------------------------------------------------------------------------------------------

  function showSamples() {
    const [slider, image, rows] = ["slider", "grid", "rows"].map((id) => document.getElementById(id));
    const newest = data.grids[data.grids.length - 1];
    function show() {
      const [step, src, width, height, list] = data.grids[slider.valueAsNumber];
      const classes = data.classes[list];
      const more = classes.length > 20 ? ", …" : "";
      const named = classes.length ? ` Rows from top to bottom: ${classes.slice(0, 20).join(", ")}${more}.` : "";
      Object.assign(image, { src, width, height, alt: `Generated images after ${thousands(step)} steps.${named}` });
      document.getElementById("shown").textContent = thousands(step);
      slider.setAttribute("aria-valuetext", `step ${thousands(step)}`);
      if (rows) rows.hidden = list !== newest[4]; // a resumed run may show other classes
    }
    document.getElementById("choice").hidden = data.grids.length < 2;
    slider.addEventListener("input", show);
    show(); // browsers keep the place of a slider when a page is loaded again
  }

  // ---- charts -------------------------------------------------------------------------------------------------------

  const HEIGHT = 210, LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 22;
  const MOST_DOTS = 60; // on a line

  function add(parent, name, attributes = {}, text = "") {
    const space = parent.namespaceURI.endsWith("svg") || name === "svg" ? "http://www.w3.org/2000/svg" : parent.namespaceURI;
    const element = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text) element.textContent = text;
    return parent.appendChild(element);
  }

  const shortNumber = (value) => {
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(2);
    return value.toLocaleString("en", { maximumSignificantDigits: 4 });
  };
  const tickText = (value) => Math.abs(value) >= 1e4 || value === 0 || Math.abs(value) >= 1e-4
    ? value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 3 }) : value.toExponential(0);

  function ticks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const width = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
    const found = [];
    for (let number = Math.ceil(low / width - 1e-9); number * width <= high + width * 1e-9; number++) {
      found.push(Number((number * width).toPrecision(12)));
    }
    return found;
  }

  function logTicks(low, high) {
    const found = [];
    for (let power = Math.floor(low); power <= high; power++) {
      for (const factor of high - low > 2 ? [1] : [1, 2, 5]) {
        const place = Math.log10(factor) + power;
        if (place >= low && place <= high) found.push(place);
      }
    }
    return found;
  }

  /** The range of some numbers; never empty. */
  function range(numbers, margin) {
    let low = Infinity, high = -Infinity;
    for (const number of numbers) { low = Math.min(low, number); high = Math.max(high, number); }
    if (low > high) [low, high] = [0, 1];
    if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
    return [low - margin * (high - low), high + margin * (high - low)];
  }

  /** The index of the last item that is at most `step`; -1 if there is none. */
  function lastUpTo(steps, step) {
    let low = 0, high = steps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] <= step) low = middle + 1; else high = middle;
    }
    return low - 1;
  }

  class Chart {
    constructor(parent, chart, charts, firstStep, lastStep) {
      Object.assign(this, { ...chart, charts, firstStep, lastStep });
      this.isMixed = new Set(this.lines.map((line) => line.is_validation)).size > 1;
      this.scale = this.is_log ? Math.log10 : (value) => value;
      this.steps = [...new Set(this.lines.flatMap((line) => line.points.map(([step]) => step)))].sort((a, b) => a - b);
      this.values = range(this.lines.flatMap((line) => line.points.filter(([, value]) => value !== null)
        .map(([, value]) => this.scale(value))), 0.05);
      const figure = add(parent, "figure");
      const caption = add(figure, "figcaption", {}, this.title + (this.is_log ? " (logarithmic)" : ""));
      this.stepText = add(caption, "span");
      this.addLegend(figure);
      this.svg = add(figure, "svg", {
        class: "chart", tabindex: 0, role: "slider", "aria-label": `${this.title}: values at a step`,
        "aria-valuemin": this.steps[0], "aria-valuemax": this.steps[this.steps.length - 1],
      });
      this.listen();
      this.read(null);
    }

    addLegend(figure) {
      const legend = add(figure, "ul", { class: "legend" });
      for (const line of this.lines) {
        line.steps = line.points.map(([step]) => step);
        const item = add(legend, "li");
        const sample = add(item, "svg", { width: 16, height: 6, "aria-hidden": true });
        add(sample, "line", { x1: 0, x2: 16, y1: 3, y2: 3, class: this.classOf(line), style: this.strokeOf(line) });
        add(item, "span", {}, line.name);
        line.text = add(item, "b");
      }
    }

    classOf(line) { return line.is_validation && this.isMixed ? "line validation" : "line"; }
    strokeOf(line) { return `stroke: var(--color-${line.color})`; }
    x(step) { return LEFT + (step - this.firstStep) / (this.lastStep - this.firstStep) * (this.width - LEFT - RIGHT); }
    y(value) { return HEIGHT - BOTTOM - (this.scale(value) - this.values[0]) / (this.values[1] - this.values[0]) * (HEIGHT - TOP - BOTTOM); }

    draw() {
      this.width = this.svg.clientWidth || 320;
      this.svg.replaceChildren();
      this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
      this.drawAxes();
      for (const [step, , text] of data.alarms) {
        const mark = add(this.svg, "line", { class: "mark", x1: this.x(step), x2: this.x(step), y1: TOP, y2: HEIGHT - BOTTOM });
        add(mark, "title", {}, text);
      }
      for (const line of this.lines) this.drawLine(line);
      this.cursor = add(this.svg, "g");
    }

    drawAxes() {
      const [low, high] = this.values;
      const across = this.is_log ? logTicks(low, high).map((place) => 10 ** place) : ticks(low, high, 5);
      for (const value of across) {
        add(this.svg, "line", { class: "rule", x1: LEFT, x2: this.width - RIGHT, y1: this.y(value), y2: this.y(value) });
        add(this.svg, "text", { x: LEFT - 6, y: this.y(value) + 4, "text-anchor": "end" }, tickText(value));
      }
      for (const step of ticks(this.firstStep, this.lastStep, Math.max(2, Math.floor(this.width / 90)))) {
        const anchor = this.x(step) > this.width - RIGHT - 12 ? "end" : this.x(step) < LEFT + 6 ? "start" : "middle";
        add(this.svg, "text", { x: this.x(step), y: HEIGHT - 5, "text-anchor": anchor }, tickText(step));
      }
    }

    drawLine(line) {
      let path = "", isDown = false; // values that are not finite leave gaps
      for (const [step, value] of line.points) {
        if (value !== null) path += `${isDown ? "L" : "M"}${this.x(step).toFixed(1)} ${this.y(value).toFixed(1)}`;
        isDown = value !== null;
      }
      add(this.svg, "path", { class: this.classOf(line), style: this.strokeOf(line), d: path });
      const isSparse = line.points.length <= MOST_DOTS && (line.is_validation || line.points.length < 2);
      for (const [step, value] of isSparse ? line.points : []) {
        if (value !== null) this.addDot(this.svg, line, step, value, 2.5);
      }
    }

    addDot(parent, line, step, value, r) {
      add(parent, "circle", { class: "dot", cx: this.x(step), cy: this.y(value), r, style: `fill: var(--color-${line.color})` });
    }

    /** Shows the values at a step, or the last ones for `null`. */
    read(step) {
      this.step = step;
      const at = step ?? this.steps[this.steps.length - 1], texts = [];
      this.cursor?.replaceChildren();
      if (step !== null) add(this.cursor, "line", { class: "cursor", x1: this.x(at), x2: this.x(at), y1: TOP, y2: HEIGHT - BOTTOM });
      for (const line of this.lines) {
        const point = line.points[lastUpTo(line.steps, at)];
        line.text.textContent = !point ? "–" : point[1] === null ? "not finite" : shortNumber(point[1]);
        texts.push(`${line.name} ${line.text.textContent}`);
        if (step !== null && point && point[1] !== null) this.addDot(this.cursor, line, ...point, 4);
      }
      this.stepText.textContent = `step ${thousands(at)}`;
      this.svg.setAttribute("aria-valuenow", at);
      this.svg.setAttribute("aria-valuetext", `step ${thousands(at)}: ${texts.join(", ")}`);
    }

    listen() {
      const show = (step) => { for (const chart of this.charts) chart.read(step); };
      const point = (event) => {
        const share = (event.clientX - this.svg.getBoundingClientRect().left - LEFT) / (this.width - LEFT - RIGHT);
        const wanted = this.firstStep + share * (this.lastStep - this.firstStep);
        const before = Math.max(0, lastUpTo(this.steps, wanted)), after = Math.min(before + 1, this.steps.length - 1);
        show(this.steps[wanted - this.steps[before] > this.steps[after] - wanted ? after : before]);
      };
      for (const kind of ["pointermove", "pointerdown"]) this.svg.addEventListener(kind, point);
      for (const kind of ["pointerleave", "blur"]) this.svg.addEventListener(kind, () => show(null));
      this.svg.addEventListener("keydown", (event) => {
        const last = this.steps.length - 1, now = lastUpTo(this.steps, this.step ?? Infinity);
        const moves = {
          ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1,
          PageDown: now - 10, PageUp: now + 10, Home: 0, End: last,
        };
        if (event.key === "Escape") show(null);
        if (!(event.key in moves)) return;
        event.preventDefault();
        show(this.steps[Math.min(last, Math.max(0, moves[event.key]))]);
      });
    }
  }

  function showCharts() {
    const parent = document.getElementById("charts"), charts = [];
    const steps = data.charts.flatMap((chart) => chart.lines.flatMap((line) => line.points.map(([step]) => step)));
    const [first, last] = range(steps, 0), start = first < last / 10 ? Math.min(0, first) : first;
    for (const chart of data.charts) charts.push(new Chart(parent, chart, charts, start, last));
    const draw = () => { for (const chart of charts) { chart.draw(); chart.read(chart.step); } };
    new ResizeObserver(draw).observe(parent);
    draw();
  }

  if (data.grids.length) showSamples();
  if (data.charts.length) showCharts();
})();
