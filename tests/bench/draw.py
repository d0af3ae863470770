#!/usr/bin/env python3
"""Draws what `make bench` measured: draw.py build/bench.json docs/bench.svg

Above, how long a session takes until its first command has answered, on a scale of powers of ten.
Below, each figure that has a bar, as the share of that bar which it takes up: what ends left of the
line holds.
"""
import html
import json
import math
import sys

WIDTH, LEFT, RIGHT, ROW = 900, 250, 120, 20
INK, GOOD, BAD, TRACK = "#222", "#2a7f62", "#b3402a", "#eceae4"

OPENINGS = [
    ("cold", "cold: open and first command"),
    ("warm", "warm: open and first command"),
    ("from pause", "from pause: first command"),
    ("awake", "awake: next command"),
]


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


class Picture:
    def __init__(self):
        self.parts, self.y = [], 30

    def text(self, x, y, words, anchor="start", size=12, weight="normal", fill=INK):
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
            f'text-anchor="{anchor}" fill="{fill}">{html.escape(words)}</text>')

    def bar(self, x, y, width, fill, height=12):
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height}" '
            f'fill="{fill}"/>')

    def line(self, x, top, bottom, dash=""):
        self.parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{INK}" '
            f'stroke-width="1"{dash}/>')

    def heading(self, words):
        self.text(20, self.y, words, size=14, weight="bold")
        self.y += 14

    def save(self, path):
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.y + 10}" '
                f'viewBox="0 0 {WIDTH} {self.y + 10}" font-family="sans-serif">\n'
                f'<rect width="100%" height="100%" fill="#fff"/>\n')
            file.write("\n".join(self.parts))
            file.write("\n</svg>\n")


def openings(picture, raw):
    rows = [(name, median(raw[key])) for name, key in OPENINGS if raw.get(key)]
    if not rows:
        return
    picture.heading("Until the first command has answered (median, ms)")
    span = WIDTH - LEFT - RIGHT
    high = math.ceil(math.log10(max(value for _, value in rows)))
    top = picture.y
    for name, value in rows:
        width = span * max(math.log10(value) + 1, 0) / (high + 1)
        picture.text(LEFT - 8, picture.y + 10, name, "end")
        picture.bar(LEFT, picture.y, span, TRACK)
        picture.bar(LEFT, picture.y, width, GOOD)
        picture.text(LEFT + span + 8, picture.y + 10, f"{value:.1f}")
        picture.y += ROW
    for power in range(-1, high + 1):
        x = LEFT + span * (power + 1) / (high + 1)
        picture.line(x, top - 2, picture.y, ' stroke-dasharray="1 3"')
        picture.text(x, picture.y + 12, f"{10 ** power:g}", "middle", 10)
    picture.y += 44


def figures(picture, data):
    picture.heading("Each figure as a share of what it may be (left of the line: it holds)")
    span = WIDTH - LEFT - RIGHT
    end = 1.5
    top = picture.y
    for name in sorted(data["figures"]):
        bar = data.get("bars", {}).get(name, "")
        value = data["figures"][name]
        if not bar:
            continue
        limit = float(bar[2:])
        share = value / limit if bar[0] == "<" else limit / value if value else end
        picture.text(LEFT - 8, picture.y + 10, name, "end")
        picture.bar(LEFT, picture.y, span, TRACK)
        picture.bar(LEFT, picture.y, span * min(max(share, 0), end) / end,
                    GOOD if share <= 1 else BAD)
        picture.text(LEFT + span + 8, picture.y + 10, f"{value:.4g} ({bar})", size=11)
        picture.y += ROW
    picture.line(LEFT + span / end, top - 4, picture.y)
    picture.y += 10


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        data = json.load(file)
    picture = Picture()
    openings(picture, data.get("raw", {}))
    figures(picture, data)
    picture.save(sys.argv[2])


main()
