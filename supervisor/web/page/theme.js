// Before anything is drawn: the theme that was chosen here, else the system's.
"use strict";
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("creel-theme");
  } catch {
    // No storage: the system's.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
