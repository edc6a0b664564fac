/** The three charts of the page, as plain SVG: no style attributes, so that a strict content security policy allows them. */

type Attributes = Readonly<Record<string, string | number>>;

function draw(tag: string, attributes: Attributes, ...children: (Node | string)[]): SVGElement {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

/** A picture with a text for those who do not see it. */
function picture(width: number, height: number, label: string, ...children: SVGElement[]): SVGElement {
  const size = { viewBox: `0 0 ${width} ${height}`, width, height };
  return draw("svg", { ...size, role: "img", "aria-label": label, "font-family": "system-ui, sans-serif" }, ...children);
}

/** One bar. */
export interface Bar {
  label: string;
  value: number;
  /** What the bar stands for, in words. */
  text: string;
}

/** Upright bars of shares, 0 to 1. */
export function shareBars(label: string, bars: readonly Bar[]): SVGElement {
  const [width, top, height, foot] = [240, 14, 64, 16];
  const step = width / Math.max(bars.length, 4);
  const thick = Math.min(step * 0.62, 22);
  const columns = bars.map(({ label: name, value, text }, index) => {
    const [x, tall] = [index * step + step / 2, Math.max(value * height, 1.5)];
    const small = { x, "text-anchor": "middle", class: "chart-label", "font-size": bars.length > 10 ? 7.5 : 9.5 };
    return draw(
      "g",
      {},
      draw("title", {}, text),
      draw("rect", {
        class: "chart-bar",
        x: x - thick / 2,
        y: top + height - tall,
        width: thick,
        height: tall,
        rx: Math.min(3, tall / 2),
      }),
      draw("text", { ...small, y: top + height - tall - 4 }, String(Math.round(value * 100))),
      draw("text", { ...small, y: top + height + foot - 4 }, name),
    );
  });
  const ground = draw("line", { class: "chart-line", x1: 0, x2: width, y1: top + height, y2: top + height });
  return picture(width, top + height + foot, `${label}: ${bars.map((bar) => bar.text).join("; ")}`, ground, ...columns);
}

/** A line through the values, with the last one marked. */
export function sparkline(label: string, values: readonly number[]): SVGElement {
  const [width, height, margin] = [240, 40, 4];
  const most = Math.max(...values, 1e-9);
  const at = (value: number, index: number) => {
    const x = values.length > 1 ? margin + (index / (values.length - 1)) * (width - 2 * margin) : width - margin;
    return [x, height - margin - (value / most) * (height - 2 * margin)] as const;
  };
  const points = values.map((value, index) =>
    at(value, index)
      .map((number) => number.toFixed(1))
      .join(","),
  );
  const [x, y] = at(values.at(-1) ?? 0, values.length - 1);
  return picture(
    width,
    height,
    label,
    draw("polyline", { class: "chart-curve", points: points.join(" "), fill: "none" }),
    draw("circle", { class: "chart-dot", cx: x, cy: y, r: 2.5 }),
  );
}

/** Colours of a chart: those of the page, or fixed ones for a file that goes elsewhere. */
export interface Palette {
  ground: string;
  ink: string;
  quiet: string;
  line: string;
  gain: string;
  loss: string;
}

export const PAGE: Palette = {
  ground: "none",
  ink: "var(--ink)",
  quiet: "var(--quiet)",
  line: "var(--field)",
  gain: "var(--accent)",
  loss: "var(--field)",
};

export const PAPER: Palette = {
  ground: "#ffffff",
  ink: "#1d1f21",
  quiet: "#5f6167",
  line: "#8d8f94",
  gain: "#0c7569",
  loss: "#b9b6ae",
};

/** Lying bars of speed-ups, with a line where nothing is gained. */
export function speedupChart(title: string, subtitle: string, bars: readonly Bar[], palette: Palette): SVGElement {
  const [width, left, right, top, row] = [640, 128, 68, 58, 30];
  const height = top + bars.length * row + 28;
  const scale = (width - left - right) / Math.max(1.25, ...bars.map(({ value }) => value));
  const words = (x: number, y: number, text: string, more: Attributes = {}) =>
    draw("text", { x, y, fill: palette.ink, "font-size": 13, ...more }, text);
  const lines = bars.flatMap(({ label, value, text }, index) => {
    const y = top + index * row;
    const fill = value >= 1 ? { fill: palette.gain } : { fill: palette.loss, "fill-opacity": 0.6 };
    return [
      words(left - 12, y + 18, label, { "text-anchor": "end" }),
      draw(
        "rect",
        { x: left, y: y + 5, width: Math.max(value * scale, 1), height: row - 10, rx: 4, ...fill },
        draw("title", {}, text),
      ),
      words(width - 12, y + 18, `${value.toFixed(2)}×`, { "font-weight": 600, "text-anchor": "end" }),
    ];
  });
  const one = left + scale;
  return picture(
    width,
    height,
    `${title}: ${bars.map((bar) => bar.text).join("; ")}`,
    draw("rect", { width, height, fill: palette.ground }),
    words(12, 24, title, { "font-size": 15, "font-weight": 600 }),
    words(12, 43, subtitle, { fill: palette.quiet, "font-size": 12 }),
    ...lines,
    draw("line", { x1: one, x2: one, y1: top, y2: height - 22, stroke: palette.line, "stroke-dasharray": "3 3" }),
    words(one, height - 8, "1× = plain", { fill: palette.quiet, "font-size": 11, "text-anchor": "middle" }),
  );
}

/** The same as the text of a file. */
export function svgFile(svg: SVGElement): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(svg)}\n`;
}
