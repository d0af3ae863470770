// The output of a command: in a terminal's columns and colours, and otherwise as text.
import { Filter } from "./output_filter.js";

// xterm.js writes its styles into <style> elements, which the page's policy forbids; style sheets made
// by script are allowed. It gets an element that shows nothing, whose text becomes such a sheet.
const create = document.createElement.bind(document);
document.createElement = (name, options) => {
  const style = String(name).toLowerCase() === "style";
  const element = create(style ? "template" : name, options);
  if (style) {
    const sheet = new CSSStyleSheet();
    document.adoptedStyleSheets.push(sheet);
    Object.defineProperty(element, "textContent", {
      get: () => "",
      set: (text) => sheet.replaceSync(text),
    });
    element.remove = () => {
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== sheet);
      Element.prototype.remove.call(element);
    };
  }
  return element;
};

const THEMES = {
  light: {
    background: "#fbfaf7", foreground: "#1d2328", cursor: "#fbfaf7", selectionBackground: "#b9d8d8",
    black: "#1d2328", red: "#a3201d", green: "#1c6b2a", yellow: "#775400", blue: "#1a55a8", magenta: "#8a2a80", cyan: "#0f6468", white: "#5b646b",
    brightBlack: "#5b646b", brightRed: "#b3261e", brightGreen: "#1f7a31", brightYellow: "#7d5a00", brightBlue: "#1f62bd", brightMagenta: "#99308e", brightCyan: "#117074", brightWhite: "#3a434a",
  },
  dark: {
    background: "#0e1417", foreground: "#dde4e7", cursor: "#0e1417", selectionBackground: "#2c5355",
    black: "#8b979e", red: "#ff8b82", green: "#7fd18c", yellow: "#e6c068", blue: "#86b7ff", magenta: "#e59be0", cyan: "#6fd3d6", white: "#dde4e7",
    brightBlack: "#9aa6ad", brightRed: "#ffa39c", brightGreen: "#98dea3", brightYellow: "#f0d08a", brightBlue: "#a3c8ff", brightMagenta: "#eeb3ea", brightCyan: "#8fe0e2", brightWhite: "#ffffff",
  },
};

export function themeNow() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

let library = null;

export class OutputTerminal {
  static async open(place) {
    library ??= import("/vendor/xterm.js");
    const { Terminal } = await library;
    return new OutputTerminal(place, Terminal);
  }
  constructor(place, Terminal) {
    this.place = place;
    this.filter = new Filter();
    this.terminal = new Terminal({
      disableStdin: true, scrollback: 5000, convertEol: false, screenReaderMode: true, cursorBlink: false,
      cursorInactiveStyle: "none", fontSize: 13, lineHeight: 1.2, fontFamily: "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace",
      theme: THEMES[themeNow()], minimumContrastRatio: 4.5, windowOptions: {}, allowProposedApi: false,
      // A sandbox leads nobody anywhere.
      linkHandler: { activate() {}, allowNonHttpProtocols: false },
    });
    // Nothing is typed here: Tab leads on, as anywhere else.
    this.terminal.attachCustomKeyEventHandler((event) => event.key !== "Tab");
    this.terminal.open(place);
    this.fit();
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(place);
  }
  fit() {
    const width = this.place.clientWidth - 22;
    if (width < 80) return;
    const context = (this.measure ??= create("canvas").getContext("2d"));
    context.font = `13px ${this.terminal.options.fontFamily}`;
    const columns = Math.max(20, Math.floor(width / context.measureText("M").width));
    const rows = Math.max(8, Math.floor(this.place.clientHeight / 16.5));
    if (columns !== this.terminal.cols || rows !== this.terminal.rows) this.terminal.resize(columns, rows);
  }
  // Resolves when it was drawn, so that whoever writes goes no faster than that.
  write(data) {
    return this.text(this.filter.take(data));
  }
  text(text) {
    return new Promise((resolve) => this.terminal.write(text, resolve));
  }
  note(text) {
    return this.text(`${this.filter.end()}\x1b[0m\r\n\x1b[2m— ${text}\x1b[0m\r\n`);
  }
  retheme() {
    this.terminal.options.theme = THEMES[themeNow()];
  }
  close() {
    this.observer.disconnect();
    this.terminal.dispose();
  }
}
