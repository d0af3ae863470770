// What is weaker than it should be.
import { call } from "./api.js";
import { el, setText, value, visible } from "./text.js";

const ORDER = ["SEVERITY_SEVERE", "SEVERITY_WARNING", "SEVERITY_INFO", "SEVERITY_OK"];
const SAID = { SEVERITY_SEVERE: ["bad", "a wall is missing"], SEVERITY_WARNING: ["warn", "weaker than it could be"], SEVERITY_INFO: ["plain", "worth knowing"], SEVERITY_OK: ["good", "good"] };

export function doctorView() {
  const list = el("ul", { class: "findings" });
  const who = el("p", { class: "summary" });
  const status = el("p", { class: "hint", role: "status" });
  const again = el("button", { type: "button" }, "Look again");
  async function look() {
    if (again.getAttribute("aria-disabled") === "true") return;
    again.setAttribute("aria-disabled", "true");
    setText(status, "Looking…");
    try {
      const [{ findings = [] }, info] = await Promise.all([call("Operator/Diagnose"), call("Operator/GetInfo")]);
      findings.sort((a, b) => ORDER.indexOf(a.severity) - ORDER.indexOf(b.severity));
      list.replaceChildren(...findings.map((each) => {
        const [kind, said] = SAID[each.severity] ?? ["plain", "unknown"];
        return el("li", { class: `card finding ${kind}` },
          el("div", { class: "row" }, el("span", { class: `badge ${kind}` }, said), el("strong", {}, value(each.title, 400)), el("code", { class: "hint" }, value(each.id, 80))),
          each.severity !== "SEVERITY_OK" && each.why ? el("p", {}, value(each.why, 1200)) : null,
          each.severity !== "SEVERITY_OK" && each.fix ? el("p", {}, el("strong", {}, "To do: "), value(each.fix, 1200)) : null);
      }));
      setText(who, `creeld ${visible(info.version, 40)}, engine ${visible(info.engineVersion || "away", 40)}`);
      const bad = findings.filter((each) => each.severity !== "SEVERITY_OK").length;
      setText(status, bad === 0 ? "All is as it should be." : `${bad} of ${findings.length} findings want a look.`);
    } catch (error) {
      setText(status, visible(error.message, 400));
    } finally {
      again.removeAttribute("aria-disabled");
    }
  }
  again.addEventListener("click", look);
  look();
  return {
    title: "Doctor",
    element: el("section", { "aria-labelledby": "title" },
      el("div", { class: "heading" }, el("h1", { id: "title" }, "Doctor"), who, el("div", { class: "actions" }, again)), status, list),
    close() {},
  };
}
