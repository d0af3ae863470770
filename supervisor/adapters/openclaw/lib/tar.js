// A tar archive of files that are in memory, as the supervisor's TarIn unpacks it.

const BLOCK = 512;

function header(name, mode, size, kind) {
  const block = Buffer.alloc(BLOCK);
  block.write(name.subarray(0, 100).toString("latin1"), 0, "latin1");
  block.write(`${mode.toString(8).padStart(7, "0")}\0`, 100);
  block.write("0000000\0".repeat(2), 108);
  block.write(`${size.toString(8).padStart(11, "0")}\0`, 124);
  block.write("00000000000\0", 136);
  block.write(" ".repeat(8), 148);
  block.write(kind, 156);
  block.write("ustar\0" + "00", 257);
  const sum = block.reduce((all, byte) => all + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

const padding = (size) => Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);

// The length of a record counts its own digits.
function paxRecord(key, value) {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from("\n")]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

// `files`: {name, mode, data}, names relative and with `/`.
export function tarOf(files) {
  const pieces = [];
  for (const { name, mode, data } of files) {
    const bytes = Buffer.from(name);
    if (bytes.length > 100) {
      const record = paxRecord("path", bytes);
      pieces.push(header(Buffer.from("long-name"), 0o644, record.length, "x"), record, padding(record.length));
    }
    pieces.push(header(bytes, mode, data.length, "0"), data, padding(data.length));
  }
  pieces.push(Buffer.alloc(2 * BLOCK));
  return Buffer.concat(pieces);
}
