// What the page lets a command's output do to its terminal.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Filter } from "../../supervisor/web/page/output_filter.js";

const bytes = (text) => new TextEncoder().encode(text);
const filtered = (text) => {
  const filter = new Filter();
  return filter.take(bytes(text)) + filter.end();
};

test("conceal and blinking are taken out wherever they stand, and colours are kept as they are", () => {
  for (const [given, kept] of [
    // Alone: nothing is left, not even a reset.
    ["8", null], ["08", null], ["0000008", null], ["8;8", null], ["5", null], ["6", null], ["8:1", null],
    ["", "0"], ["0", "0"], [";", "0;0"], ["8;", "0"], [";8", "0"],
    ["1;8", "1"], ["8;1", "1"], ["1;8;31", "1;31"], ["31;08;1", "31;1"],
    // An argument of a colour is no conceal.
    ["38;5;8", "38;5;8"], ["48;5;8", "48;5;8"], ["58;5;8", "58;5;8"], ["38;5;08", "38;5;8"], ["038;05;8", "38;5;8"],
    ["38;2;8;8;8", "38;2;8;8;8"], ["48;2;1;8;3", "48;2;1;8;3"], ["1;38;5;8;4", "1;38;5;8;4"],
    ["38;5;8;48;5;8", "38;5;8;48;5;8"], ["38;2;8;8;8;48;2;8;8;8", "38;2;8;8;8;48;2;8;8;8"],
    // And what stands behind a colour is none of its arguments.
    ["38;5;8;8", "38;5;8"], ["38;5;1;8", "38;5;1"], ["38;2;1;2;3;8", "38;2;1;2;3"], ["8;38;5;8", "38;5;8"], ["8;38;5;8;8;1", "38;5;8;1"],
    ["38;5;5;8;48;5;38;8", "38;5;5;48;5;38"], ["38;5;38;5;8", "38;5;38"], ["38;2;38;5;48;8", "38;2;38;5;48"], ["58;2;5;8;5;8", "58;2;5;8;5"],
    // Left out is nought.
    ["38;5;;8", "38;5;0"], ["38;2;;8;;8", "38;2;0;8;0"],
    // With colons.
    ["38:5:8", "38;5;8"], ["38:5:8;8", "38;5;8"], ["8;38:5:8", "38;5;8"], ["38:2:8:8:8", "38;2;8;8;8"], ["38:2::8:8:8", "38;2;8;8;8"],
    ["38:2:1:8:9:10", "38;2;8;9;10"], ["38:2::1:2:3:0:8;8", "38;2;1;2;3"], ["48:5:1;8;48:2::8:8:8", "48;5;1;48;2;8;8;8"],
    ["4:3", "4:3"], ["4:3;8", "4:3"], ["4:8", null], ["1:8", null], ["0:8", null],
    // A colour that is none: who knows where it ends.
    ["38", null], ["38;8", null], ["38;5", null], ["38;2;8", null], ["38;2;1;2", null], ["31;38;8;1", "31"], ["38;1;8", null], ["38;8;5;8", null],
    ["38;5;256;8", null], ["38;2;1;2;999;8", null], ["38:5;8", null], ["38:8", null], ["38:;8", null], ["38;5:8", null], ["38;5;8:8", null], ["38;2;8:1;1;1", null],
    // Not what a terminal of ours would know.
    ["99", null], ["1000008", null], ["31;200;32", "31;32"],
  ]) {
    assert.equal(filtered(`a\x1b[${given}mb`), kept === null ? "ab" : `a\x1b[${kept}mb`, `ESC [ ${given} m`);
  }
});

test("however it is cut into pieces, it comes out the same", () => {
  const text = "é\r\nx\x1b[38;5;8;8mgrey\x1b[8mhidden\x1b[0m\x1b[2Jy\rz\x1b]0;t\x07\x1b[38:2::8:8:8mw\x1b";
  const whole = filtered(text);
  assert.equal(whole, "é\r\nx\x1b[38;5;8mgreyhidden\x1b[0m␛[2Jy\r\nz␛]0;t␇\x1b[38;2;8;8;8mw␛");
  const all = bytes(text);
  for (let cut = 0; cut <= all.length; ++cut) {
    const filter = new Filter();
    assert.equal(filter.take(all.subarray(0, cut)) + filter.take(all.subarray(cut)) + filter.end(), whole, `cut at ${cut}`);
  }
  const filter = new Filter();
  let out = "";
  for (const each of all) out += filter.take(Uint8Array.of(each));
  assert.equal(out + filter.end(), whole);
});

test("whatever numbers come, no terminal is told to conceal", () => {
  // Reads codes as xterm.js does, in its own strict form.
  const conceals = (codes) => {
    for (let at = 0; at < codes.length; ++at) {
      if (["38", "48", "58"].includes(codes[at])) at += codes[at + 1] === "5" ? 2 : 4;
      else if (Number(codes[at].split(":")[0]) === 8) return true;
    }
    return false;
  };
  assert.ok(conceals(["38", "5", "8", "8"]) && !conceals(["38", "2", "8", "8", "8"]));
  const words = ["8", "08", "38", "48", "58", "5", "2", "1", "", "0", "38:5", "38:5:8", "38:2::8:8:8", "8:8", "4:3", "255", "256"];
  let seed = 1;
  const next = (below) => (seed = (seed * 48271) % 2147483647) % below;
  for (let i = 0; i < 20_000; ++i) {
    const given = Array.from({ length: 1 + next(9) }, () => words[next(words.length)]).join(";");
    const out = filtered(`\x1b[${given}m`);
    if (out === "" || out.startsWith("␛")) continue;
    const codes = /^\x1b\[([0-9;:]*)m$/.exec(out)?.[1].split(";");
    assert.ok(codes && !conceals(codes), `${given} became ${JSON.stringify(out)}`);
  }
});
