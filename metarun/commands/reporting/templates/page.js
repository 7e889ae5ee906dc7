"use strict";
const body = (table) => table.tBodies[0];
const key = (row, place) => {
  const cell = row.cells[place];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim().toLowerCase();
};
const order = (a, b, up) => {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  const sign = a < b ? -1 : a > b ? 1 : 0;
  return up ? sign : -sign;
};
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table"), place = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    body(table).append(...[...body(table).rows].sort((a, b) => order(key(a, place), key(b, place), up)));
  });
}
for (const input of document.querySelectorAll(".filter input")) {
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of body(input.closest("figure").querySelector("table")).rows) {
      row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    }
  });
}
