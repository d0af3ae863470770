// Small graphs: lines of our own in the list, uPlot where there is room for axes.
import { bytes, el } from "./text.js";

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A line of the last values, for those who see; the value stands beside it as text.
export class Spark {
  constructor(name, width = 48, height = 22) {
    this.name = name;
    this.width = width;
    this.height = height;
    this.canvas = el("canvas", { class: "spark", "aria-hidden": "true" });
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.ratio = ratio;
  }
  draw(values, most, points) {
    const context = this.canvas.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    if (values.length < 2) return;
    const top = Math.max(most, 1e-9);
    const step = this.width / (points - 1);
    const x = (i) => this.width - (values.length - 1 - i) * step;
    const y = (v) => this.height - 1.5 - Math.min(1, v / top) * (this.height - 3);
    context.beginPath();
    values.forEach((v, i) => (i === 0 ? context.moveTo(x(i), y(v)) : context.lineTo(x(i), y(v))));
    context.strokeStyle = color(this.name);
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.stroke();
    context.lineTo(this.width, this.height);
    context.lineTo(x(0), this.height);
    context.closePath();
    context.globalAlpha = 0.14;
    context.fillStyle = color(this.name);
    context.fill();
    context.globalAlpha = 1;
  }
}

const FORMAT = { percent: (v) => `${v < 10 ? v.toFixed(1) : Math.round(v)} %`, bytes };

// One measure over time.
export class Chart {
  constructor({ title, name, unit, limit }) {
    this.unit = unit;
    this.name = name;
    this.limit = limit;
    this.now = el("strong", {}, "–");
    this.place = el("div", { class: "plot", "aria-hidden": "true" });
    this.element = el("figure", { class: "chart" }, el("figcaption", {}, el("span", {}, title), this.now), this.place);
  }
  make(width) {
    const format = FORMAT[this.unit];
    const axis = {
      stroke: color("--muted"), font: "11px system-ui, sans-serif", size: 24,
      grid: { stroke: color("--line"), width: 1 }, ticks: { show: false },
    };
    this.plot = new uPlot(
      {
        width, height: 120, cursor: { show: false }, legend: { show: false },
        scales: { x: { time: true }, y: { range: (_, __, most) => [0, Math.max(most * 1.15, this.unit === "bytes" ? 1 << 20 : 5)] } },
        axes: [
          { ...axis, space: 90, values: (_, ticks) => ticks.map((at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false })) },
          { ...axis, size: 62, space: 28, values: (_, ticks) => ticks.map(format) },
        ],
        series: [{}, { stroke: color(this.name), width: 1.75, fill: `${color(this.name)}22`, points: { show: false } }],
      },
      [[], []],
      this.place,
    );
  }
  draw(at, values) {
    const width = this.place.clientWidth;
    if (width < 40) return;
    if (!this.plot) this.make(width);
    if (Math.abs(this.plot.width - width) > 4) this.plot.setSize({ width, height: 120 });
    this.plot.setData([at, values]);
    const last = values.at(-1);
    const limit = this.limit?.();
    this.now.textContent =
      last === undefined ? "–" : FORMAT[this.unit](last) + (limit ? ` of ${FORMAT[this.unit](limit)}` : "");
  }
  remake() {
    this.plot?.destroy();
    this.plot = null;
  }
}
