/** @import { Point, Series } from "./plot_layout.js" */
import { create } from "./dom.js";
import { layout, stack } from "./plot_layout.js";
import { strings } from "./strings.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 480;
const BAR_HEIGHT = 28;
const tickFormat = new Intl.NumberFormat(strings.locale, { maximumSignificantDigits: 3 });

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {(Node | string)[]} [children]
 */
function svg(tag, attributes, children = []) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * A plot of lines with the spread of the runs as whiskers. The numbers stand in a table as well: the picture has a label.
 *
 * @param {object} what
 * @param {string} what.title
 * @param {string} what.unit  of y
 * @param {string} what.along  what x is
 * @param {Series[]} what.series
 * @param {(y: number) => string} what.format
 * @param {number} [what.height]  of 480 units of width
 * @param {string} [what.over]  x is a time, evenly spaced, with a mark at each point left out: what a person is told about it
 * @returns {HTMLElement}
 */
export function linePlot({ title, unit, along, series, format, height = 260, over }) {
  const frame = { left: 56, right: WIDTH - 28, top: 22, bottom: height - 40 };
  const shown = series.filter(({ points }) => points.length > 0);
  const at = layout(shown, frame, { even: over !== undefined });
  const label = `${title}: ${over ?? describe(shown, format)}`;
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label });
  for (const tick of at.yTicks) {
    const y = at.y(tick);
    picture.append(
      svg("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y, y2: y }),
      svg("text", { class: "tick end", x: frame.left - 8, y: y + 4 }, [tickFormat.format(tick)]),
    );
  }
  for (const tick of at.xTicks) picture.append(svg("text", { class: "tick middle", x: at.x(tick), y: frame.bottom + 18 }, [String(tick)]));
  picture.append(
    svg("text", { class: "axis", x: 0, y: 12 }, [unit]),
    svg("text", { class: "axis middle", x: (frame.left + frame.right) / 2, y: height - 4 }, [along]),
  );
  for (const [index, { points }] of shown.entries()) {
    const group = svg("g", { class: `series-${index + 1}` });
    const path = points.map(({ x, y }, i) => `${i ? "L" : "M"}${at.x(x).toFixed(1)} ${at.y(y).toFixed(1)}`).join("");
    group.append(svg("path", { class: "line", d: path }));
    for (const { x, y, low, high } of over === undefined ? points : []) {
      if (low !== undefined && high !== undefined) {
        group.append(svg("line", { class: "whisker", x1: at.x(x), x2: at.x(x), y1: at.y(low), y2: at.y(high) }));
      }
      group.append(svg("circle", { cx: at.x(x), cy: at.y(y), r: 4 }, [svg("title", {}, [`${x}: ${format(y)} ${unit}`])]));
    }
    picture.append(group);
  }
  return figureOf(title, picture, shown.length > 1 ? shown.map(({ name }) => name) : []);
}

/** @param {Series[]} series @param {(y: number) => string} format */
function describe(series, format) {
  return series.map(({ name, points }) => `${name} ${points.map(({ x, y }) => strings.performance.plotPoint(format(y), x)).join(", ")}`).join("; ");
}

/**
 * What a whole is made of, as one bar.
 *
 * @param {string} title
 * @param {{ name: string, value: number }[]} parts
 * @param {(value: number) => string} format
 * @returns {HTMLElement}
 */
export function partsBar(title, parts, format) {
  const names = parts.map(({ name, value }) => `${name} ${format(value)}`);
  const picture = svg("svg", { class: "bar-plot", viewBox: `0 0 ${WIDTH} ${BAR_HEIGHT}`, role: "img", "aria-label": `${title}: ${names.join(", ")}` });
  for (const [index, { start, share }] of stack(parts.map(({ value }) => value)).entries()) {
    picture.append(
      svg("rect", { class: `series-${index + 1}`, x: start * WIDTH, y: 0, width: Math.max(0, share * WIDTH - 1), height: BAR_HEIGHT }, [
        svg("title", {}, [names[index] ?? ""]),
      ]),
    );
  }
  return figureOf(title, picture, names);
}

/** @param {string} title @param {Element} picture @param {string[]} legend */
function figureOf(title, picture, legend) {
  const items = legend.map((name, index) => create("li", { class: `series-${index + 1}`, text: name }));
  return create("figure", { class: "plot" }, [
    create("figcaption", { text: title }),
    picture,
    ...(items.length ? [create("ul", { class: "legend" }, items)] : []),
  ]);
}
