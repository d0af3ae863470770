// Questions before something is done, and word of what was done.
import { el, visible } from "./text.js";

export function toast(text, kind = "good") {
  const note = el("div", { class: `toast ${kind}` }, visible(text, 600));
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), kind === "bad" ? 12_000 : 6_000);
}

// Asks; `fields` are inputs as { name, label, type, value, required, options }. Resolves to their
// values, or null.
export function ask({ title, text, fields = [], yes, danger = false }) {
  return new Promise((resolve) => {
    const inputs = fields.map((field, i) => {
      const id = `ask-${i}`;
      let input;
      if (field.type === "checkbox") {
        input = el("input", { type: "checkbox", id, name: field.name, checked: field.value ?? false });
        return el("div", { class: "field check" }, input, el("label", { for: id }, field.label));
      }
      if (field.options) {
        input = el("select", { id, name: field.name }, field.options.map((each) => el("option", { value: each }, each)));
      } else {
        input = el("input", {
          type: "text", id, name: field.name, value: field.value ?? "", required: field.required ?? false,
          maxlength: 1000, autocomplete: "off", placeholder: field.placeholder,
        });
      }
      return el("div", { class: "field" }, el("label", { for: id }, field.label), input);
    });
    const form = el(
      "form",
      { method: "dialog" },
      el("h2", { id: "ask-title" }, title),
      text ? el("p", {}, text) : null,
      inputs,
      el(
        "div",
        { class: "actions" },
        el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel"),
        el("button", { type: "submit", class: danger ? "danger" : "primary" }, yes),
      ),
    );
    const dialog = el("dialog", { "aria-labelledby": "ask-title" }, form);
    const before = document.activeElement;
    let answer = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      answer = {};
      for (const field of fields) {
        const input = form.elements[field.name];
        answer[field.name] = field.type === "checkbox" ? input.checked : input.value;
      }
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      before?.focus?.();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Does something that may fail, and says how it went. Returns whether it went well.
export async function act(doing, done, button) {
  // Not `disabled`, which would take the focus away from who uses the keyboard.
  if (button?.getAttribute("aria-disabled") === "true") return false;
  button?.setAttribute("aria-disabled", "true");
  try {
    const text = await doing();
    toast(typeof text === "string" ? text : done);
    return true;
  } catch (error) {
    toast(`${error.message}`, "bad");
    return false;
  } finally {
    button?.removeAttribute("aria-disabled");
  }
}
