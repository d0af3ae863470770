// What of a command's output a terminal may be given: text, its line ends, colours and weight. Nothing
// that a sandbox prints moves the cursor, changes what was printed before, or hides anything.

const HIDDEN =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001a\u001c-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb]|[\u{e0000}-\u{e0fff}]/gu;
const COLOUR = /^\x1b\[([0-9;:]{0,48})m/;
const UNFINISHED = /^\x1b(\[[0-9;:]{0,48})?$/;

function shown(c) {
  const code = c.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "␡";
  return `⟨${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

// One that stands alone and hides nothing. Not 5 and 6, which blink, and not 8, which conceals.
function isPlain(code) {
  return (
    (code <= 29 && ![5, 6, 8].includes(code)) || (code >= 30 && code <= 37) || code === 39 || (code >= 40 && code <= 47) ||
    code === 49 || code === 53 || code === 55 || code === 59 || (code >= 90 && code <= 97) || (code >= 100 && code <= 107)
  );
}

const isByte = (each) => /^[0-9]{0,9}$/.test(each) && Number(each) <= 255;

// The extended colour that begins at `codes[at]`, as [how it is written so that no terminal reads it
// otherwise, how many codes it takes]; null if it is none, and then nobody can say where it ends.
function extended(codes, at) {
  const [target, ...inside] = codes[at].split(":");
  if (inside.length > 0) {
    // 38:5:N, 38:2:SPACE:R:G:B with what may follow it, and 38:2:R:G:B as some write it.
    const [mode, ...rest] = inside;
    const values = Number(mode) === 5 ? rest.slice(0, 1) : rest.length > 3 ? rest.slice(1, 4) : rest;
    return written(target, mode, values, 1);
  }
  const mode = codes[at + 1] ?? "";
  const length = Number(mode) === 5 ? 1 : 3;
  return written(target, mode, codes.slice(at + 2, at + 2 + length), 2 + length);
}

function written(target, mode, values, taken) {
  const wanted = { 5: 1, 2: 3 }[/^[0-9]+$/.test(mode) ? Number(mode) : ""];
  if (values.length !== wanted || !values.every(isByte)) return null;
  return [[Number(target), Number(mode), ...values.map(Number)].join(";"), taken];
}

// `codes` stands between `ESC [` and `m`. What comes back says the same but for what hides; empty if
// nothing is left of it.
function colours(all) {
  const codes = all.split(";");
  const kept = [];
  for (let at = 0; at < codes.length;) {
    const code = Number(codes[at].split(":")[0]);
    if (code === 38 || code === 48 || code === 58) {
      const colour = extended(codes, at);
      if (!colour) break;
      kept.push(colour[0]);
      at += colour[1];
      continue;
    }
    // 4:3 and the like are kinds of underline; no other has parts.
    if (/^[0-9]*$/.test(codes[at]) ? isPlain(code) : /^0*4:[0-5]$/.test(codes[at])) kept.push(codes[at] === "" ? "0" : codes[at].replace(/^0+(?=[0-9])/, ""));
    ++at;
  }
  return kept.length > 0 ? `\x1b[${kept.join(";")}m` : "";
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
        out += colours(colour[1]);
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
