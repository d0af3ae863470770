// The output of a command: in a terminal's columns and colours, and otherwise as text. Nothing that a
// sandbox prints moves the cursor, changes what was printed before, or hides anything.

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

const HIDDEN =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001a\u001c-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb]|[\u{e0000}-\u{e0fff}]/gu;
// Colours and weight; never concealed (8), and nothing with other letters.
const COLOUR = /^\x1b\[([0-9;:]{0,48})m/;
const UNFINISHED = /^\x1b(\[[0-9;:]{0,48})?$/;

function shown(c) {
  const code = c.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "␡";
  return `⟨${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

// Turns bytes as they come into what the terminal may be given.
export class Filter {
  constructor() {
    this.decoder = new TextDecoder("utf-8", { fatal: false });
    this.rest = "";
  }
  take(data) {
    const text = this.rest + this.decoder.decode(data, { stream: true });
    this.rest = "";
    let out = "";
    let from = 0;
    for (;;) {
      const at = text.indexOf("\x1b", from);
      out += this.plain(text.slice(from, at < 0 ? undefined : at), at < 0);
      if (at < 0) return out;
      const tail = text.slice(at, at + 64);
      const colour = COLOUR.exec(tail);
      if (colour) {
        const kept = colour[1].split(";").filter((each) => !/^0*8$/.test(each) || /(^|;)[34]8;/.test(colour[1]));
        out += `\x1b[${kept.join(";")}m`;
        from = at + colour[0].length;
      } else if (at + tail.length === text.length && UNFINISHED.test(tail)) {
        this.rest = tail;
        return out;
      } else {
        out += "␛";
        from = at + 1;
      }
    }
  }
  plain(text, last) {
    let all = text;
    if (last && all.endsWith("\r")) {
      this.rest = "\r";
      all = all.slice(0, -1);
    }
    // A carriage return would write over what is there: what follows gets a line of its own.
    return all.replace(/\r\n?|\n/g, "\r\n").replace(HIDDEN, shown);
  }
  end() {
    const rest = this.rest.replace("\x1b", "␛").replace("\r", "\r\n");
    this.rest = "";
    return rest;
  }
}

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
