#!/usr/bin/env python3
"""Makes a picture of a terminal from what was printed there.

    CREEL=… CREEL_RUN_DIR=… script -qec 'stty cols 150; docker/setup/tour.sh' /dev/null |
      docker/setup/tour-picture.py >docs/tour.svg

Colours of ANSI sequences are kept; times and sizes that differ from run to run are as they came.
"""
import html
import re
import sys

COLOURS = {"0": None, "2": "#8a9ba3", "32": "#5fc27e", "1;31": "#ff6b5e"}
LINE = 19
CHARACTER = 8.03


def pieces(line):
    """The line as (colour, column, text), without trailing blanks."""
    colour, column = None, 0
    for part in re.split(r"(\x1b\[[0-9;]*m)", line.rstrip()):
        if part.startswith("\x1b["):
            colour = COLOURS.get(part[2:-1] or "0")
        elif part:
            yield colour, column, part
            column += len(part)


def main():
    text = sys.stdin.buffer.read().decode("ascii", "replace").replace("\r", "")
    lines = text.strip("\n").split("\n")
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    if not any(line.startswith("All ") and line.endswith("walls held.") for line in plain):
        sys.exit("tour-picture.py: this is not the output of a tour that held")
    width = round(max(len(line.rstrip()) for line in plain) * CHARACTER) + 32
    height = len(lines) * LINE + 62
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
          f'aria-label="The tour in a terminal: every attempt and what stopped it">')
    print(f'<rect width="{width}" height="{height}" rx="8" fill="#14232a"/>')
    for x, colour in ((22, "#ff6b5e"), (42, "#f0b95a"), (62, "#5fc27e")):
        print(f'<circle cx="{x}" cy="20" r="6" fill="{colour}"/>')
    print('<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="13.4" '
          'fill="#dde6e9" xml:space="preserve">')
    for row, line in enumerate(lines):
        for colour, column, part in pieces(line):
            fill = f' fill="{colour}"' if colour else ""
            length = round(len(part) * CHARACTER, 1)
            print(f'<text x="{round(16 + column * CHARACTER, 1)}" y="{52 + row * LINE}" '
                  f'textLength="{length}"{fill}>{html.escape(part)}</text>')
    print("</g></svg>")


main()
